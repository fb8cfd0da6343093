"""Pages of the reference, made from the code whenever the site is built.

MkDocs calls `on_files`; each ``*_page`` function returns one page as Markdown.
"""

from __future__ import annotations

import collections.abc
import inspect
import json
import re
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import typer.main
from pydantic import BaseModel, ByteSize
from pydantic_core import PydanticUndefined

from distspectral import errors
from distspectral.cli.app import app
from distspectral.config import RunConfig
from distspectral.recipes import RECIPES
from distspectral.stages import STAGES

ROOT = Path(__file__).parents[1]


def on_files(files: Any, config: Any) -> Any:
    """Add the generated pages to the site."""
    from mkdocs.structure.files import File

    for name, page in PAGES.items():
        files.append(File.generated(config, name, content=page()))
    return files


# ---- config ------------------------------------------------------------------------------------------------------


def config_page() -> str:
    """Return every key of a config: type, default, meaning."""
    lines = [
        "# Config",
        "",
        "A config is a YAML file. It needs `name` and `data.path`. Every other key has a default.",
        "`distspectral schema` prints the same as a JSON schema.",
        "Any key can be changed on the command line: `--set train.max_steps=500`.",
        "",
        "## The run",
        "",
    ]
    sections = []
    for name, field in RunConfig.model_fields.items():
        if section := _section(field.annotation):
            sections.append((name, section))
        else:
            lines += _key(name, field, RunConfig)
    for name, section in sorted(sections, key=lambda one: ORDER.index(one[0]) if one[0] in ORDER else len(ORDER)):
        lines += ["", f"## {name} {{#{name}}}", "", _purpose(section), "", *_other_defaults(name)]
        if described := RunConfig.model_fields[name].description:
            lines += [_sentence(described), ""]
        for key, field, owner in _fields(name, section):
            lines += _key(key, field, owner)
    return "\n".join(lines) + "\n"


ORDER = [
    "data",
    "pack",
    "autoencoder",
    "pca",
    "graph",
    "affinity",
    "siamese",
    "network",
    "spectral",
    "orthonorm",
    "train",
    "cluster",
    "embed",
    "dscl",
]
"""Of the sections, that of a run; others follow as the config has them."""


def _other_defaults(section: str) -> list[str]:
    """Return how defaults of the section ``train`` differ by kind of run."""
    if section != "train":
        return []
    lines = []
    for kind, recipe in RECIPES.items():
        if recipe.budget:
            values = ", ".join(f"`{key}` {value:,}" for key, value in recipe.budget.items())
            lines += [f"With `objective: {kind}` other defaults hold: {values}.", ""]
    return lines


def config_keys() -> list[str]:
    """Return the dotted names of all keys that hold a value."""
    keys = []
    for name, field in RunConfig.model_fields.items():
        section = _section(field.annotation)
        keys += [key for key, _, _ in _fields(name, section)] if section else [name]
    return keys


def _fields(prefix: str, model: type[BaseModel]) -> Iterator[tuple[str, Any, type[BaseModel]]]:
    """Yield dotted name, field and owner of every value in a section and in the sections inside it."""
    for name, field in model.model_fields.items():
        key, inner = f"{prefix}.{name}", _section(field.annotation)
        if inner is not field.annotation:
            yield key, field, model
        if inner is not None:
            by_stage = typing.get_origin(field.annotation) is collections.abc.Mapping
            yield from _fields(f"{key}.STAGE" if by_stage else key, inner)


def _section(annotation: Any) -> type[BaseModel] | None:
    """Return the model among the types of a key."""
    for kind in (annotation, *typing.get_args(annotation)):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None


def _key(key: str, field: Any, owner: type[BaseModel]) -> list[str]:
    """Return one key as an entry of a definition list."""
    schema = owner.model_json_schema()
    wanted = _type(schema["properties"][key.rpartition(".")[2]], schema)
    default = "required" if field.is_required() else f"default {_default(field)}"
    return [f"`{key}`{{#{key}}}", f":   {wanted}, {default}", "", f"    {_sentence(field.description or '')}", ""]


def _default(field: Any) -> str:
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return "none"
    if isinstance(value, ByteSize):
        return f"`{value.human_readable().replace('.0', '')}`"
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    if isinstance(value, tuple):
        value = list(value)
    if value == "":
        return "empty"
    text = json.dumps(value, default=str) if not isinstance(value, str) else str(value)
    return f"`{text}`"


def _type(schema: dict[str, Any], root: dict[str, Any]) -> str:
    """Return what a JSON schema accepts, in words."""
    if "$ref" in schema:
        schema = root["$defs"][schema["$ref"].rpartition("/")[2]]
    if "enum" in schema:
        return "one of " + ", ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    if options := schema.get("anyOf") or schema.get("oneOf"):
        return " or ".join(_type(option, root) for option in options)
    kind = schema.get("type", "anything")
    if kind == "array":
        items = schema.get("items")
        return "list" if not items else f"list of ({_type(items, root)})"
    words = {
        "integer": "integer",
        "number": "number",
        "string": "text",
        "boolean": "`true` or `false`",
        "null": "`null`",
        "object": "mapping",
    }
    return " ".join([words.get(kind, kind), *_bounds(schema)])


def _bounds(schema: dict[str, Any]) -> list[str]:
    signs = {"exclusiveMinimum": "above", "minimum": "from", "exclusiveMaximum": "below", "maximum": "to"}
    return [f"{word} {schema[name]:,}" for name, word in signs.items() if name in schema]


# ---- stages ------------------------------------------------------------------------------------------------------


def stages_page() -> str:
    """Return every stage: what it does, where it writes, who does the work."""
    lines = [
        "# Stages",
        "",
        "A stage has one name: in `distspectral stage NAME`, `submit --stage NAME`, `ray.resources` and reports.",
        "[Stages and artifacts](../explanation/stages.md) says how they hang together.",
        "",
    ]
    titles = {"spectral": "Spectral runs", "dscl": "Metric runs, `objective: dscl`"}
    for kind, stages in STAGES.items():
        lines += [f"## {titles[kind]} {{#{kind}}}", ""]
        for stage in stages.values():
            lines += [
                f"`{stage.name}`{{#{kind}-{stage.name}}}",
                f":   {stage.purpose} Writes [`{stage.folder}/`](artifacts.md). {WORKERS[stage.workers]}",
                "",
            ]
    return "\n".join(lines) + "\n"


WORKERS = {
    "tasks": "Its work goes to Ray tasks.",
    "actors": "Its work goes to Ray tasks; to actors that keep the model where `ray.actors` or GPUs are asked for.",
    "training": "Its work goes to a group of training workers.",
    "driver": "The driver works alone.",
}


# ---- commands ----------------------------------------------------------------------------------------------------


def commands_page() -> str:
    """Return every command with its arguments and options."""
    group: Any = typer.main.get_command(app)
    lines = ["# Commands", "", _sentence(group.help), ""]
    lines += ["Options of `distspectral` itself stand before the command:", "", *_options(group)]
    for path, command in _commands(group, ("distspectral",)):
        arguments = [str(p.metavar or p.name.upper()) for p in command.params if p.param_type_name == "argument"]
        usage = " ".join([*path, *arguments, "[OPTIONS]"])
        lines += [f"## {' '.join(path[1:])} {{#{'-'.join(path[1:])}}}", "", "```text", usage, "```", ""]
        lines += [inspect.cleandoc(command.help or ""), "", *_options(command)]
        if path[-1] == "stage":
            lines += ["The names are those of [the stages](stages.md).", ""]
    return "\n".join(lines) + "\n"


def _commands(group: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, (*path, name))
        else:
            yield (*path, name), command


def _options(command: Any) -> list[str]:
    """Return a command's arguments and options, as its help names them, as a definition list."""
    context = typer.Context(command, info_name=command.name)
    lines = []
    for parameter in command.params:
        shown, text = parameter.get_help_record(context)
        lines += [f"`{_plain_metavar(shown)}`", f":   {_escaped(' '.join(text.split()))}", ""]
    return lines


def _plain_metavar(shown: str) -> str:
    """Return an option's names and value without the parser's own words for its type."""
    return shown.replace("<int range>", "INTEGER").replace("<float range>", "NUMBER").replace("<str>", "TEXT")


# ---- errors ------------------------------------------------------------------------------------------------------


def errors_page() -> str:
    """Return every error that is raised on purpose, below the one it is a kind of."""
    lines = [
        "# Errors",
        "",
        "Every error that distspectral raises on purpose is a `DistSpectralError`.",
        "A message says where, what was found, what was expected and what to do.",
        "The command line prints it in one line and exits with code 2.",
        "Ctrl-C exits with code 130, SIGTERM with 143. `distspectral --debug` shows the traceback.",
        "",
    ]
    lines += _error(errors.DistSpectralError, 0)
    return "\n".join(lines) + "\n"


def _error(kind: type[Exception], depth: int) -> list[str]:
    first, *_ = inspect.cleandoc(kind.__doc__ or "").partition("\n\n")
    others = [base.__name__ for base in kind.__bases__ if not issubclass(base, errors.DistSpectralError)]
    also = f" Also a `{others[0]}`." if others and others[0] != "Exception" else ""
    indent = "    " * depth
    lines = [f"{indent}- `{kind.__name__}`{{#{kind.__name__}}}: {' '.join(first.split())}{also}"]
    for below in kind.__subclasses__():
        if below.__module__ == errors.__name__:
            lines += _error(below, depth + 1)
    return lines


# ---- pages that lie at the root of the repository ----------------------------------------------------------------


def home_page() -> str:
    """Return the README with its links as they are inside the site."""
    text = (ROOT / "README.md").read_text("utf-8")
    text = text.replace("(docs/", "(").replace("(CHANGELOG.md)", "(changelog.md)")
    return "---\nhide: [navigation]\n---\n" + text.replace("[Apache 2.0](LICENSE)", "Apache 2.0")


def changelog_page() -> str:
    """Return the changelog at the root of the repository."""
    return (ROOT / "CHANGELOG.md").read_text("utf-8")


def _purpose(section: type[BaseModel]) -> str:
    """Return the first sentence of a config model, without the remark about its place in the YAML."""
    first = inspect.cleandoc(section.__doc__ or "").partition("\n")[0]
    return first.partition(" (YAML")[0].partition(" (section")[0].rstrip(".") + "."


def _sentence(text: str) -> str:
    """Return a description as a sentence; what a value means, ``auto = cuda``, shows the value as code."""
    text = _escaped(" ".join(text.split()).rstrip("."))
    shown = re.sub(r"(^|[;:,(] )([\w\\]+|\{[^}]*\}) = ", lambda m: f"{m[1]}`{_unescaped(m[2])}` = ", text)
    return f"{shown[:1].upper()}{shown[1:]}." if shown else ""


def _escaped(text: str) -> str:
    """Return a text whose characters mean nothing to Markdown, code spans left alone."""
    parts = text.split("`")
    parts[::2] = [re.sub(r"([*_\[])", r"\\\1", part).replace("<", "&lt;") for part in parts[::2]]
    return "`".join(parts)


def _unescaped(text: str) -> str:
    return text.replace("\\", "")


PAGES: dict[str, Callable[[], str]] = {
    "index.md": home_page,
    "reference/config.md": config_page,
    "reference/stages.md": stages_page,
    "reference/commands.md": commands_page,
    "reference/errors.md": errors_page,
    "changelog.md": changelog_page,
}
"""By place in the site."""

"""YAML and overrides to a ``RunConfig``; every problem is named by its dotted key, with the file it is in."""

from __future__ import annotations

import difflib
import itertools
import math
import types
import typing
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from distspectral.config.run import RunConfig
from distspectral.errors import ConfigError, UnknownKeyError, first_line
from distspectral.frozen import expected
from distspectral.secrets import HIDDEN, is_secret_name, redacted_values, secret_keys
from distspectral.stages.finished_run import CONFIG
from distspectral.storage.artifact.directory import Artifact

ABSENT = {"data.weight_column": "all rows weigh the same in graph, training and clusters, so there is none"}
"""Keys that people look for, and why there are none."""
CLOSE_ENOUGH = 0.6
LONGEST_SHOWN = 80
MOST_NODES = 1_000_000
"""Values of a YAML file, those behind aliases each time: a few hundred bytes of aliases can stand for billions."""


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Return the checked config of a YAML file.

    Args:
        path: the file; relative paths inside it are relative to the working directory.
        overrides: ``section.key=value`` each; the value is read as YAML.

    Raises:
        ConfigError: the file cannot be read or parsed, or a value is refused; all refused values are listed.
        UnknownKeyError: a key does not exist; the message names the nearest real one.
    """
    try:
        text = Path(path).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}); name a YAML file") from error
    return parse_config(text, str(path), overrides)


def parse_config(text: str, origin: str, overrides: Sequence[str] = ()) -> RunConfig:
    """Return the checked config of a YAML text; ``origin`` is what messages call it. Errors as `load_config`."""
    values = _parse_yaml(text, origin)
    for override in overrides:
        _apply(values, override)
    return validate_values(values, origin)


def config_of(root: Artifact, overrides: Sequence[str] = ()) -> RunConfig:
    """Return the checked config that stands in a run's root, with overrides. Errors as `load_config`.

    Raises:
        MissingArtifactError: there is none.
    """
    return parse_config(root.read_bytes(CONFIG).decode(), f"{root.uri}/{CONFIG}", overrides)


def validate_values(values: dict[str, Any], origin: str) -> RunConfig:
    """Return the checked config of nested plain values. Errors as `load_config`."""
    _refuse_secrets(values, origin)
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        found = error.errors(include_url=False)
        unknown = [_unknown(_keys(one["loc"], values, False)) for one in found if one["type"] == "extra_forbidden"]
        others = [dict(one) for one in found if one["type"] != "extra_forbidden"]
        problems = [*unknown, *_problems(others, values)]
        kind = UnknownKeyError if unknown else ConfigError
        if len(problems) == 1:
            raise kind(f"{origin}: {problems[0]}") from None
        listed = "\n".join(f"  {problem}" for problem in problems)
        raise kind(f"{origin}: {len(problems)} problems\n{listed}") from None


def _refuse_secrets(values: dict[str, Any], origin: str) -> None:
    """Refuse a secret where it would be written into artifacts; what MLflow is reached by is not.

    Raises:
        ConfigError: just that.
    """
    for key in secret_keys({name: value for name, value in values.items() if name != "mlflow"}):
        raise ConfigError(
            f"{origin}: {key}: carries a secret, which would be written into artifacts and logs; take it out and give "
            "it by an environment variable, or by the machine's own identity"
        )


class _StrictLoader(yaml.SafeLoader):
    """Safe YAML that refuses a key given twice instead of keeping the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Return the mapping, every key once."""
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if isinstance(key_node, yaml.ScalarNode):
                if key_node.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"key {key_node.value!r} occurs twice", key_node.start_mark
                    )
                seen.add(key_node.value)
        return super().construct_mapping(node, deep)


def _parse_yaml(text: str, origin: str) -> dict[str, Any]:
    try:
        loader = _StrictLoader(text)
        node = loader.get_single_node()
        is_bomb = node is not None and _n_nodes(node, {}) > MOST_NODES
        values = None if node is None or is_bomb else loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = f" line {mark.line + 1}, column {mark.column + 1}:" if mark else ""
        raise ConfigError(f"{origin}:{line} not valid YAML: {error.problem or error.context}") from None
    except RecursionError:
        raise ConfigError(f"{origin}: is nested too deeply; a config has sections of keys") from None
    except (yaml.YAMLError, ValueError, TypeError) as error:  # a date that is none, a number of thousands of digits
        raise ConfigError(f"{origin}: not valid YAML: {first_line(error)}") from None
    if is_bomb:
        raise ConfigError(f"{origin}: aliases make more than {MOST_NODES:,} values of it; write them out")
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{origin}: holds a {type(values).__name__}; expected sections such as `data:` and `train:`")
    return values


def _n_nodes(node: yaml.Node, known: dict[int, float]) -> float:
    """Return how many values a YAML node stands for, those behind aliases each time; infinitely many in a loop."""
    if id(node) not in known:
        known[id(node)] = math.inf  # until it is counted: an alias inside itself
        inner = node.value if isinstance(node, yaml.CollectionNode) else []
        pairs = isinstance(node, yaml.MappingNode)
        children = itertools.chain.from_iterable(inner) if pairs else inner
        known[id(node)] = 1 + sum(_n_nodes(child, known) for child in children)
    return known[id(node)]


def _apply(values: dict[str, Any], override: str) -> None:
    """Set one ``a.b=c`` in nested values."""
    dotted, equals, text = override.partition("=")
    keys = dotted.strip().split(".")
    if not equals or not all(keys):
        raise ConfigError(f"--set {override}: expected section.key=value, such as train.max_steps=500")
    section = values
    for depth, key in enumerate(keys[:-1]):
        if section.get(key) is None:
            section[key] = {}
        if not isinstance(section[key], dict):
            raise ConfigError(f"--set {override}: `{'.'.join(keys[: depth + 1])}` is a value, not a section")
        section = section[key]
    section[keys[-1]] = _typed(text, _takes_text(keys), override)


ENCLOSING = tuple("[{\"'")
"""With which a list, a mapping or quoted text begins, whose end may have been forgotten."""


def _typed(text: str, takes_text: bool, override: str) -> Any:
    """Return the value that was typed for a key: read as YAML, but all of it.

    Where the key takes text, ``on`` and ``123`` are text, and so is ``*.npy``, which is no YAML; what YAML calls a
    comment is a part of it.

    Raises:
        ConfigError: it is no YAML, or a comment follows it.
    """
    try:
        node = yaml.compose(text, yaml.SafeLoader)
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        if takes_text and text.strip()[:1] not in ENCLOSING:
            return text.strip()
        raise ConfigError(f"--set {override}: the value is not valid YAML; put it in quotes") from error
    is_whole = "#" not in text if node is None else not text[node.end_mark.index :].strip()
    is_plain = node is None or (isinstance(node, yaml.ScalarNode) and node.style is None)
    if not is_whole and not (is_plain and takes_text):
        raise ConfigError(f"--set {override}: a `#` after a blank begins a comment in YAML; put the value in quotes")
    if is_plain and takes_text and (value is not None or not is_whole):
        return text.strip()
    return value


def _takes_text(keys: Sequence[str]) -> bool:
    """Whether any text is a value of the key."""
    model: type[BaseModel] | None = RunConfig
    for key in keys[:-1]:
        model = model and _section(model, key)
    field = model.model_fields.get(keys[-1]) if model else None
    return field is not None and str in _kinds(field.annotation)


def _kinds(annotation: Any) -> list[Any]:
    """Return the types that an annotation joins, without what is said of them."""
    inner = typing.get_args(annotation)
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union:
        return [kind for one in inner for kind in _kinds(one)]
    return _kinds(inner[0]) if typing.get_origin(annotation) is typing.Annotated else [annotation]


def _problems(errors: Sequence[dict[str, Any]], values: dict[str, Any]) -> list[str]:
    """Return pydantic's problems as ``section.key: expected this or that (got value)``, one for each key."""
    said: dict[str, list[str]] = {}
    wanted: dict[str, list[str]] = {}
    found: dict[str, Any] = {}
    for error in errors:
        keys = _keys(error["loc"], values, error["type"] == "missing")
        dotted = ".".join(keys) or "config"
        found[dotted] = HIDDEN if keys and is_secret_name(keys[-1]) else redacted_values(error["input"])
        if error["type"] == "missing":
            said[dotted] = ["is missing"]
        elif (words := expected(error)) is not None:
            wanted.setdefault(dotted, []).append(words)
        else:
            message = error["msg"].removeprefix("Value error, ")
            said.setdefault(dotted, []).append(
                message if isinstance(error["input"], dict) else _with(message, found[dotted])
            )
    for dotted, kinds in wanted.items():
        if not any(other.startswith(f"{dotted}.") for other in found):  # else one kind of section is to blame inside
            *first, last = dict.fromkeys(kinds)
            listed = f"{', '.join(first)} or {last}" if first else last
            said.setdefault(dotted, []).append(_with(f"expected {listed}", found[dotted]))
    return [f"{dotted}: {message}" for dotted, messages in said.items() for message in messages]


def _with(message: str, value: Any) -> str:
    shown = repr(value)
    return f"{message} (got {shown if len(shown) <= LONGEST_SHOWN else f'{shown[:LONGEST_SHOWN]}...'})"


def _keys(location: tuple[Any, ...], values: Any, is_missing: bool) -> list[str]:
    """Return the part of a pydantic location that is in the YAML: without the names of union members."""
    keys: list[str] = []
    for part in location:
        try:
            values = values[part]
        except (LookupError, TypeError):
            if not (is_missing and part == location[-1]):
                continue
        keys.append(str(part))
    return keys


def _unknown(location: Sequence[str]) -> str:
    *sections, key = location
    model: type[BaseModel] = RunConfig
    for part in sections:
        model = _section(model, part) or model
    prefix = "".join(f"{part}." for part in sections)
    message = f"unknown key `{prefix}{key}`"
    if reason := ABSENT.get(f"{prefix}{key}"):
        return f"{message}; {reason}"
    if elsewhere := [name for name in _all_keys(RunConfig) if name.rpartition(".")[2] == key]:
        return f"{message}; there is `{'`, `'.join(elsewhere)}`"
    said = [name for name in model.model_fields if name in key.split("_")]
    if nearest := said or difflib.get_close_matches(key, model.model_fields, 1, CLOSE_ENOUGH):
        return f"{message}; did you mean `{prefix}{nearest[0]}`?"
    by_key = {name.rpartition(".")[2]: name for name in reversed(_all_keys(RunConfig))}
    if nearest := difflib.get_close_matches(key, by_key, 1, CLOSE_ENOUGH):
        return f"{message}; did you mean `{by_key[nearest[0]]}`?"
    return f"{message}; {prefix.rstrip('.') or 'the config'} has {', '.join(model.model_fields)}"


def _section(model: type[BaseModel], name: str) -> type[BaseModel] | None:
    """Return the model of the section ``name`` of a model, None where it is a plain value."""
    field = model.model_fields.get(name)
    candidates = (field.annotation, *typing.get_args(field.annotation)) if field else ()
    return next((kind for kind in candidates if isinstance(kind, type) and issubclass(kind, BaseModel)), None)


def _all_keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    """Return every dotted key below a model, its own first."""
    names = [f"{prefix}{name}" for name in model.model_fields]
    for name in model.model_fields:
        if section := _section(model, name):
            names += _all_keys(section, f"{prefix}{name}.")
    return names

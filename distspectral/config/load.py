"""YAML and overrides to a ``RunConfig``; every problem is named by its dotted key, with the file it is in."""

from __future__ import annotations

import difflib
import typing
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from distspectral.config.run import RunConfig
from distspectral.errors import ConfigError, UnknownKeyError

CLOSE_ENOUGH = 0.6
LONGEST_SHOWN = 80


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


def validate_values(values: dict[str, Any], origin: str) -> RunConfig:
    """Return the checked config of nested plain values. Errors as `load_config`."""
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        problems = [_problem(dict(problem)) for problem in error.errors(include_url=False)]
        unknown = any(problem["type"] == "extra_forbidden" for problem in error.errors(include_url=False))
        kind = UnknownKeyError if unknown else ConfigError
        if len(problems) == 1:
            raise kind(f"{origin}: {problems[0]}") from None
        listed = "\n".join(f"  {problem}" for problem in problems)
        raise kind(f"{origin}: {len(problems)} problems\n{listed}") from None


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
        values = yaml.load(text, _StrictLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = f" line {mark.line + 1}, column {mark.column + 1}:" if mark else ""
        raise ConfigError(f"{origin}:{line} not valid YAML: {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{origin}: not valid YAML: {error}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{origin}: holds a {type(values).__name__}; expected sections such as `data:` and `train:`")
    return values


def _apply(values: dict[str, Any], override: str) -> None:
    """Set one ``a.b=c`` in nested values."""
    dotted, equals, text = override.partition("=")
    keys = dotted.strip().split(".")
    if not equals or not all(keys):
        raise ConfigError(f"--set {override}: expected section.key=value, such as train.max_steps=500")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {override}: the value is not valid YAML; put it in quotes") from error
    section = values
    for depth, key in enumerate(keys[:-1]):
        if section.get(key) is None:
            section[key] = {}
        if not isinstance(section[key], dict):
            raise ConfigError(f"--set {override}: `{'.'.join(keys[: depth + 1])}` is a value, not a section")
        section = section[key]
    section[keys[-1]] = value


def _problem(error: dict[str, Any]) -> str:
    """Return one pydantic problem as ``section.key: message (got value)``."""
    location = error["loc"]
    if error["type"] == "extra_forbidden":
        return _unknown(tuple(str(part) for part in location))
    dotted = ".".join(str(part) for part in _keys(location)) or "config"
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "missing":
        return f"{dotted}: is missing"
    shown = repr(error["input"])
    shown = shown if len(shown) <= LONGEST_SHOWN else f"{shown[:LONGEST_SHOWN]}..."
    return f"{dotted}: {message[:1].lower()}{message[1:]} (got {shown})"


def _keys(location: tuple[Any, ...]) -> list[Any]:
    """Return the part of a pydantic location that is in the YAML: without the names of union members."""
    keys: list[Any] = []
    model: type[BaseModel] | None = RunConfig
    for part in location:
        if model is None and not isinstance(part, int):
            break
        if model is not None:
            model = _section(model, str(part))
        keys.append(part)
    return keys


def _unknown(location: tuple[str, ...]) -> str:
    *sections, key = location
    model: type[BaseModel] = RunConfig
    for part in sections:
        model = _section(model, part) or model
    prefix = "".join(f"{part}." for part in sections)
    message = f"unknown key `{prefix}{key}`"
    if elsewhere := [name for name in _all_keys(RunConfig) if name.rpartition(".")[2] == key]:
        return f"{message}; there is `{'`, `'.join(elsewhere)}`"
    if nearest := difflib.get_close_matches(key, model.model_fields, 1, CLOSE_ENOUGH):
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

"""What tells a result that stands from the one that is asked for: settings by their keys, and inputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

MOST = 4
"""Differences that a message lists."""


def setting_differences(identity: Mapping[str, Any], now: Mapping[str, Any], then: Mapping[str, Any]) -> Iterator[str]:
    """Yield each setting that differs, with both its values.

    Args:
        identity: what of the config decides the result, by section.
        now: the config asked for, its sections side by side.
        then: the config of what stands, likewise.
    """
    for section, part in identity.items():
        if not isinstance(part, dict):
            key = section.rpartition(".")[2]
            yield from _differences(section, part, now.get(key), then.get(key))
            continue
        trains = any(isinstance(value, dict) for value in part.values())  # whose settings are several sections
        for key, mask in part.items():
            if key not in now:
                continue
            name = f"{section}.{key}"
            if trains:
                name = key if key != "train" else section
            yield from _differences(name, mask, now[key], then.get(key))


def _differences(key: str, mask: Any, now: Any, then: Any) -> Iterator[str]:
    if isinstance(mask, dict) and isinstance(now, dict):
        for name, inner in mask.items():
            yield from _differences(f"{key}.{name}", inner, now.get(name), (then or {}).get(name))
    elif now != then:
        yield f"{key} is {_shown(now)}, was {_shown(then)}"


def _shown(value: Any) -> str:
    return "null" if value is None else str(value)


def in_words(differences: list[str]) -> str:
    """Return differences as one phrase, the first few of them."""
    told = list(dict.fromkeys(differences))
    more = [f"{len(told) - MOST} more"] if len(told) > MOST else []
    return ", ".join([*told[:MOST], *more])

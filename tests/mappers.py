"""Stand-ins for what hands out the items of a stage."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any


class StoppedError(Exception):
    pass


def stopping(n_items: int) -> Any:
    """Return a mapper that stops after so many items of all calls."""
    left = n_items

    def mapper(function: Any, items: Sequence[Any], description: str, **_: Any) -> Iterator[Any]:
        nonlocal left
        for item in items:
            if not left:
                raise StoppedError
            left -= 1
            yield function(item)

    return mapper

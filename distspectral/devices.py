"""Whether this process may use an accelerator: a task that asked for none leaves those of its node to others."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

_hidden = 0


def gpus_are_hidden() -> bool:
    """Whether the work under way in this process was granted no accelerator, whatever the node has."""
    return _hidden > 0


@contextlib.contextmanager
def hidden_gpus() -> Iterator[None]:
    """Let ``auto`` mean the CPU until the context is left, in every thread of this process.

    Ray no longer hides a node's accelerators from tasks that ask for none.
    """
    global _hidden
    _hidden += 1
    try:
        yield
    finally:
        _hidden -= 1

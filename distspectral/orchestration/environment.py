"""Environment variables for processes that Ray starts, gone from this process when the block ends."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator


@contextlib.contextmanager
def environment_defaults(**values: str) -> Iterator[None]:
    """Set variables that the user has not set while the block lasts; what the block adds goes with them.

    Args:
        values: by name.
    """
    before = set(os.environ)
    os.environ.update({name: value for name, value in values.items() if name not in before})
    try:
        yield
    finally:
        for name in set(os.environ) - before:
            del os.environ[name]

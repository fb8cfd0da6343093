"""Freed memory stays with the process while it trains: each step frees and takes the same tensors.

The C library hands large pieces back to the kernel, which clears each page anew when they are taken again: a quarter
of a step of an autoencoder of 512 units went there.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's mallopt: how much may lie free at the end of the heap, and from which size memory is mapped."""
KEPT = 1 << 30
USUAL = {M_MMAP_THRESHOLD: 32 << 20, M_TRIM_THRESHOLD: 64 << 20}
"""What glibc's own adjustment arrives at in a process that has once freed a large piece."""


@contextlib.contextmanager
def memory_kept() -> Iterator[None]:
    """Keep up to a gibibyte of freed memory until the context is left, where the C library is glibc."""
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallopt"):
        yield
        return
    for parameter in USUAL:
        library.mallopt(parameter, KEPT)
    try:
        yield
    finally:
        for parameter, usual in USUAL.items():
            library.mallopt(parameter, usual)
        library.malloc_trim(0)

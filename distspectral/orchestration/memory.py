"""The highest resident memory of this process and all its descendants, and of this process alone, by sampling.

Pages that processes share (memory-mapped vectors) count once for each, so it is an upper bound. A local Ray is
among the descendants; the nodes of a cluster that was joined are not. Of this process alone such pages do not count.
"""

from __future__ import annotations

import contextlib
import threading
from types import TracebackType
from typing import Self

import psutil


class PeakMemory:
    """Samples in a thread between ``with`` and its end; ``peak_bytes`` and ``own_bytes`` are the highest so far.

    Args:
        interval_s: seconds between samples.
    """

    def __init__(self, interval_s: float = 0.5) -> None:
        self.interval_s = interval_s
        self.peak_bytes = self.own_bytes = 0
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="peak-memory", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self.sample()

    def sample(self) -> None:
        """Take one sample now."""
        resident, own = resident_bytes(), own_bytes()
        with self._lock:  # a sample begun before another may end after it
            self.peak_bytes, self.own_bytes = max(self.peak_bytes, resident), max(self.own_bytes, own)

    def _watch(self) -> None:
        while True:
            self.sample()
            if self._stop.wait(self.interval_s):
                return


def resident_bytes() -> int:
    """Return the resident memory of this process and its descendants, summed."""
    process = psutil.Process()
    total = int(process.memory_info().rss)
    for child in process.children(recursive=True):
        with contextlib.suppress(psutil.Error):
            total += int(child.memory_info().rss)
    return total


def own_bytes() -> int:
    """Return the resident memory of this process, files that it maps left out where the system tells them."""
    info = psutil.Process().memory_info()
    return int(info.rss - getattr(info, "shared", 0))

"""Items of a map stage that took far longer than the others: which, where and how long."""

from __future__ import annotations

import dataclasses
import logging
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

FACTOR = 5.0
"""A straggler takes so many times the median ..."""
LEAST_S = 30.0
"""... and at least so long: the first item of a process may have code to compile."""
LEAST_ITEMS = 4
SHOWN = 3

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Timing:
    """How long an item took, and where.

    Attributes:
        item: name of the shard, or the first row, or the item's number.
        host: name of the machine.
        seconds: of the function alone, without the wait for a worker.
        core_seconds: of all threads of its process meanwhile.
    """

    item: str
    host: str
    seconds: float
    core_seconds: float


@dataclasses.dataclass(frozen=True)
class Timed:
    """A stage's function that returns its timing beside its result."""

    function: Callable[[Any], Any]

    def __call__(self, item: Any) -> tuple[Timing, Any]:
        """Call the function; items are tuples that begin with a name or a number."""
        began, spent = time.perf_counter(), time.process_time()
        result = self.function(item)
        name = str(item[0] if isinstance(item, tuple) else item)
        return Timing(name, platform.node(), time.perf_counter() - began, time.process_time() - spent), result


def stragglers(timings: Sequence[Timing]) -> list[Timing]:
    """Return the timings that are `FACTOR` times the median and above `LEAST_S`, the longest first."""
    if len(timings) < LEAST_ITEMS:
        return []
    least = max(LEAST_S, FACTOR * statistics.median(timing.seconds for timing in timings))
    return sorted((one for one in timings if one.seconds >= least), key=lambda one: -one.seconds)


def report(timings: Sequence[Timing], description: str) -> None:
    """Warn of stragglers, once a stage."""
    if late := stragglers(timings):
        median = statistics.median(timing.seconds for timing in timings)
        listed = ", ".join(f"{one.item} {one.seconds:.0f} s on {one.host}" for one in late[:SHOWN])
        logger.warning(
            "%s: %d of %d items took at least %g times the median of %.1f s: %s%s; look for a busy or slow machine, "
            "or for larger shards",
            description,
            len(late),
            len(timings),
            FACTOR,
            median,
            listed,
            ", ..." if len(late) > SHOWN else "",
        )

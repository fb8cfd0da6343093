"""Core-seconds of a run in this process, by stage and by kind of task: an engine and an observer in one.

Core-seconds, not seconds of the clock, so that others on the machine do not count; what waits for a disk does not
either, and is measured by itself.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from distspectral.mapping import Mapper
from distspectral.orchestration.engine import LocalEngine
from distspectral.orchestration.observer import SilentObserver
from distspectral.stages.stage import Stage

ALONE = "alone"
"""What a stage does besides tasks, as a kind of task."""


class Stopwatch(LocalEngine, SilentObserver):
    """Everything in this process, timed.

    Attributes:
        spent: core-seconds by (stage, kind of task); :data:`ALONE` is the stage's own work around them.
        wall: seconds of the clock by stage.
        windows: metrics of every window of training, by stage; ``core_seconds`` is added to each.
    """

    def __init__(self) -> None:
        self.spent: defaultdict[tuple[str, str], float] = defaultdict(float)
        self.wall: dict[str, float] = {}
        self.windows: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
        self._stage, self._began, self._window = "", 0.0, 0.0

    def started(self, stage: str) -> None:
        """Begin to count for a stage."""
        self._stage, self._began = stage, time.process_time()
        self._window = self._began

    def finished(self, stage: str, seconds: float) -> None:
        """Take what the stage spent beyond its tasks."""
        total = time.process_time() - self._began
        self.spent[stage, ALONE] += max(total - self.core_seconds(stage), 0.0)
        self.wall[stage] = seconds

    def window(self, record: dict[str, Any]) -> None:
        """Keep a window of training."""
        now = time.process_time()
        self.windows[self._stage].append({**record, "core_seconds": now - self._window})
        self._window = now

    def mapper(self, stage: Stage) -> Mapper:
        """Return the plain loop, timed."""
        return self._timed

    def kinds(self, stage: str) -> dict[str, float]:
        """Return the core-seconds of a stage by kind of task, :data:`ALONE` among them."""
        return {kind: spent for (of, kind), spent in self.spent.items() if of == stage}

    def core_seconds(self, stage: str) -> float:
        """Return what a stage spent in all."""
        return sum(self.kinds(stage).values())

    def _timed(
        self, function: Callable[[Any], Any], items: Sequence[Any], description: str, *, on_gpu: bool = False
    ) -> Iterator[Any]:
        for item in items:
            began = time.process_time()
            result = function(item)
            self.spent[self._stage, description] += time.process_time() - began
            yield result

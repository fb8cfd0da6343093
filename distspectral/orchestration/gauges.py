"""Stage progress and training rates as Ray custom metrics, which a node's agent offers to Prometheus, and as records.

Every series carries the run's name and the stage, so one dashboard serves all runs (cluster_configs/grafana.json).
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from distspectral import logs

if TYPE_CHECKING:
    from ray.util.metrics import Gauge

    from distspectral.orchestration.observer import Observer

GAUGES = {
    "distspectral_stage_running": "1 while the stage works",
    "distspectral_stage_seconds": "seconds that the finished stage took",
    "distspectral_items_done": "items (shards, cells, steps) done",
    "distspectral_items_total": "items in all",
    "distspectral_items_per_second": "items by the second, since the description changed",
    "distspectral_train_step": "training step",
    "distspectral_train_loss": "loss of the last window",
    "distspectral_train_rate": "edges or rows trained on by the second, all workers together",
}
TAGS = ("run", "stage", "work")


class MetricsObserver:
    """Passes everything on to another observer, tells Ray, and writes one log record per event.

    Args:
        observer: what the user sees.
        run: the run's name.
        run_id: the same for the same data and config.
    """

    def __init__(self, observer: Observer, run: str, run_id: str) -> None:
        self.observer, self.run = observer, run
        logs.add_context(run=run, run_id=run_id)
        self._stage = ""
        self._work = ""
        self._began = 0.0
        self._gauges: dict[str, Gauge] = {}

    def started(self, stage: str) -> None:
        """A stage begins to work."""
        self._stage = stage
        logs.add_context(stage=stage)
        self._set("distspectral_stage_running", 1)
        logs.event("stage started")
        self.observer.started(stage)

    def skipped(self, stage: str) -> None:
        """A stage is up to date."""
        self._stage = stage
        logs.add_context(stage=stage)
        logs.event("stage up to date")
        self.observer.skipped(stage)

    def finished(self, stage: str, seconds: float) -> None:
        """A stage is done."""
        self._set("distspectral_stage_running", 0)
        self._set("distspectral_stage_seconds", seconds)
        logs.event("stage finished", seconds=round(seconds, 3))
        self.observer.finished(stage, seconds)

    def progress(self, description: str, done: int, total: int) -> None:
        """Items, or steps of training, are done."""
        if description != self._work:
            self._work, self._began = description, time.monotonic()
        self._set("distspectral_items_done", done, description)
        self._set("distspectral_items_total", total, description)
        if done and (seconds := time.monotonic() - self._began) > 0:
            self._set("distspectral_items_per_second", done / seconds, description)
        self.observer.progress(description, done, total)

    def window(self, record: dict[str, Any]) -> None:
        """Training finished a window of steps."""
        self._set("distspectral_train_step", record["step"])
        self._set("distspectral_train_loss", record["loss"])
        for name, value in record.items():
            if name.endswith("_per_second"):
                self._set("distspectral_train_rate", value, name.removesuffix("_per_second"))
        logs.event("training window", **{name: value for name, value in record.items() if not isinstance(value, list)})
        self.observer.window(record)

    def _set(self, name: str, value: float, work: str = "") -> None:
        """Set a gauge, where this process is connected to a Ray; never imports it for that."""
        ray = sys.modules.get("ray")
        if ray is None or not ray.is_initialized():
            return
        if name not in self._gauges:
            from ray.util.metrics import Gauge

            self._gauges[name] = Gauge(name, GAUGES[name], TAGS)
        self._gauges[name].set(value, {"run": self.run, "stage": self._stage, "work": work})

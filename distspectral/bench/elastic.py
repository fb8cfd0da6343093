"""Training on a cluster that loses a node and gets one back: the loss goes on, and time is lost."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from distspectral.bench.nodes import ChaosError, Nodes, start_run, tail, write_run
from distspectral.datasets import Mixture, write_mixture
from distspectral.training.run_log import METRICS_FILE

DIM = 16
N_CLUSTERS = 8
WINDOW_STEPS = 50
TRAIN = {"batch_size": 512, "max_steps": 1_000_000, "window_steps": WINDOW_STEPS, "checkpoint_steps": 100,
         "patience": 0, "device": "cpu"}  # fmt: skip
STEPS_BEFORE = 200
"""Trained by a whole group before it loses a node."""
PATIENCE_S = 300.0
"""A training that shows no window for so long hangs."""


def bench_elastic(
    root: Path, *, n_workers: int, n_rows: int, on_window: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    """Train with a worker a node, kill a node, let the smaller group train, and start another node.

    Args:
        root: an empty directory.
        n_workers: at the beginning, at least 2.
        n_rows: N, generated, of 16 features.
        on_window: hears of each window.

    Returns:
        ``windows`` (step, workers, loss, Ritz sum and seconds of each, in the order in which they were written; steps
        that were lost come again), ``seconds_lost`` and ``steps_lost`` at either change: from the last window before to
        the first after it, less what a window took before, and the steps that were trained again.

    Raises:
        ChaosError: training ended or hung.
    """
    data = root / "data"
    write_mixture(str(data), Mixture(DIM, n_clusters=N_CLUSTERS), n_rows, rows_per_shard=-(-n_rows // 4))
    nodes = Nodes(n_workers)
    try:
        workers = {"min": 1, "max": n_workers, "check_s": 2}
        ray = {"address": nodes.address, "workers": workers}
        config = write_run(root, "elastic", data, N_CLUSTERS, train=TRAIN, ray=ray)
        log = root / "elastic.log"
        driver = start_run(config, log)
        try:
            windows = _lose_and_return(nodes, n_workers, _Follower(root / "elastic", driver, log, on_window))
        finally:
            driver.kill()
            driver.wait()
    finally:
        nodes.close()
    return {"rows": n_rows, "workers": n_workers, "windows": windows, **_losses(windows)}


class _Follower:
    """The windows of a training, as they are written.

    Args:
        root: of the run.
        driver: its process.
        log: what that says.
        on_window: hears of each.
    """

    def __init__(
        self, root: Path, driver: subprocess.Popen[bytes], log: Path, on_window: Callable[[dict[str, Any]], None]
    ) -> None:
        self.metrics = root / "training" / METRICS_FILE
        self.driver, self.log, self.on_window = driver, log, on_window
        self.heard: list[dict[str, Any]] = []
        self.began = time.monotonic()

    def until(self, reached: Callable[[dict[str, Any]], bool]) -> None:
        """Return with the first new window of which ``reached`` is true."""
        heard_at = time.monotonic()
        while True:
            for record in self._new():
                heard_at = time.monotonic()
                self.heard.append(record)
                self.on_window(record)
                if reached(record):
                    return
            if self.driver.poll() is not None or time.monotonic() > heard_at + PATIENCE_S:
                raise ChaosError(f"{self.metrics}: training ended or hung: {tail(self.log)}")
            time.sleep(0.1)

    def _new(self) -> list[dict[str, Any]]:
        """Return windows not heard before; a restart takes lines back, and steps come again with other workers."""
        lines = self.metrics.read_text().splitlines() if self.metrics.exists() else []
        seen = {(one["step"], one["workers"], one["loss"]) for one in self.heard}
        seconds = round(time.monotonic() - self.began, 2)
        records = [json.loads(line) for line in lines if line.endswith("}")]
        return [
            {key: record[key] for key in ("step", "workers", "loss", "ritz_sum")} | {"seconds": seconds}
            for record in records
            if (record["step"], record["workers"], record["loss"]) not in seen
        ]


def _lose_and_return(nodes: Nodes, n_workers: int, follower: _Follower) -> list[dict[str, Any]]:
    follower.until(lambda window: window["workers"] == n_workers and window["step"] >= STEPS_BEFORE)
    nodes.kill(0)
    follower.until(lambda window: window["workers"] < n_workers)
    nodes.add()
    follower.until(lambda window: window["workers"] == n_workers)
    return follower.heard


def _losses(windows: list[dict[str, Any]]) -> dict[str, list[float]]:
    """Return what each change of the group cost."""
    seconds: list[float] = []
    steps: list[float] = []
    for i in range(2, len(windows)):
        before, after = windows[i - 1], windows[i]
        if after["workers"] != before["workers"]:
            a_window = before["seconds"] - windows[i - 2]["seconds"]
            seconds.append(round(after["seconds"] - before["seconds"] - a_window, 1))
            steps.append(before["step"] + WINDOW_STEPS - after["step"])
    return {"seconds_lost": seconds, "steps_lost": steps}

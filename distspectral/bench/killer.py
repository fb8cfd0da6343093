"""A Ray cluster on this machine whose processes and nodes die while runs are under way.

A kill waits until the run has got on since the last one, so that a run always ends. Who dies is drawn by a seed; when,
the machine decides.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil

from distspectral.bench.nodes import AGENTS, ChaosError, Nodes, start_run, tail
from distspectral.training.run_log import METRICS_FILE

VICTIMS = ("task", "worker", "node", "driver")
"""A process that runs a task or embeds, one that trains, a node with all its processes, or the run's own process."""

N_NODES = 3
RAYS_OWN = re.compile(f"{AGENTS.pattern}|Train|Actor|DatasetManager|PlacementGroupCleaner")
"""Titles of processes that do not work on a shard; with its agent a whole node ends, the head too."""
PAUSE_S = 15.0
"""Longest time from a sign of life to the next kill."""
PATIENCE_S = 300.0
"""A run that shows no sign of life for so long hangs."""
SETTLE_S = 5.0
"""What a run leaves behind is counted so long after its end: Ray ends its actors in the background."""


@dataclasses.dataclass
class Kill:
    """What died, and when.

    Attributes:
        victim: one of :data:`VICTIMS`.
        stage: artifact that was last written to before.
        seconds: since the cluster began.
    """

    victim: str
    stage: str
    seconds: float


@dataclasses.dataclass
class Ended:
    """A run that came to its end, and what it left behind.

    Attributes:
        kills: in this run.
        failed_drivers: times its driver ended with an error of Ray's and was started again.
        seconds: from its start to its end.
        driver_peak_rss_bytes: resident memory of its largest driver.
        processes_left: actors and workers that are still there, by title.
        shared_memory_bytes: of the machine.
        temporary_files: ours, in the run and in the directory for temporary files.
    """

    kills: int
    failed_drivers: int
    seconds: float
    driver_peak_rss_bytes: int
    processes_left: dict[str, int]
    shared_memory_bytes: int
    temporary_files: int


class Killer:
    """A cluster of three nodes, and the runs on it.

    Args:
        seed: draws victims and pauses.
        n_kills: go on killing until so many have happened ...
        minutes: ... and so much time has passed.
        on_kill: hears of each.

    Raises:
        ChaosError: a node did not start.
    """

    def __init__(self, seed: int, n_kills: int, minutes: float, on_kill: Callable[[Kill], None]) -> None:
        self.rng, self.n_kills, self.minutes, self.on_kill = np.random.default_rng(seed), n_kills, minutes, on_kill
        self.kills: list[Kill] = []
        self.temporary_before = _temporary_files()
        self.nodes = Nodes(N_NODES)
        self.began = time.monotonic()

    @property
    def seconds(self) -> float:
        """Since the cluster began."""
        return time.monotonic() - self.began

    @property
    def is_done(self) -> bool:
        """Whether enough has been killed for long enough."""
        return len(self.kills) >= self.n_kills and self.seconds >= 60 * self.minutes

    def run(self, config: Path, root: Path) -> Ended:
        """Run a config to its end, killing on the way; a driver that is dead starts again.

        Args:
            config: of the run.
            root: its directory.

        Raises:
            ChaosError: it hangs, or fails more often than anything was killed.
        """
        log, began, kills_before, failed, peak = root.with_suffix(".log"), self.seconds, len(self.kills), 0, 0
        driver = start_run(config, log)
        try:
            while True:
                ended, rss = self._until_alive(root, driver)
                peak = max(peak, rss)
                if ended == 0:
                    break
                if ended is None and not self.is_done:
                    self._kill(driver, root)
                elif ended is not None:
                    failed += 1
                    if failed > self.n_kills:
                        raise ChaosError(f"{config}: failed again and again: {tail(log)}")
                if driver.poll() not in (None, 0):
                    driver = start_run(config, log)
        finally:
            driver.kill()
            driver.wait()
        seconds = self.seconds - began
        time.sleep(SETTLE_S)
        return Ended(
            kills=len(self.kills) - kills_before,
            failed_drivers=failed,
            seconds=round(seconds, 1),
            driver_peak_rss_bytes=peak,
            processes_left=dict(Counter(title for _, title in self.nodes.processes() if not AGENTS.search(title))),
            shared_memory_bytes=int(psutil.virtual_memory().shared),
            temporary_files=len(_temporary_files() - self.temporary_before) + sum(1 for _ in root.rglob("*.tmp")),
        )

    def _until_alive(self, root: Path, driver: subprocess.Popen[bytes]) -> tuple[int | None, int]:
        """Wait for the next sign of life and a moment longer; return exit code, if ended, and the driver's memory."""
        before, deadline, process, rss = _life(root), time.monotonic() + PATIENCE_S, psutil.Process(driver.pid), 0
        pause = self.rng.uniform(0, PAUSE_S)
        while driver.poll() is None:
            with contextlib.suppress(psutil.NoSuchProcess):
                rss = max(rss, int(process.memory_info().rss))
            if _life(root) != before:
                time.sleep(pause)
                return driver.poll(), rss
            if time.monotonic() > deadline:
                raise ChaosError(f"{root}: nothing happened for {PATIENCE_S:.0f} s: {tail(root.with_suffix('.log'))}")
            time.sleep(0.1)
        return driver.returncode, rss

    def _kill(self, driver: subprocess.Popen[bytes], root: Path) -> None:
        """Kill one of those that can be killed now."""
        stage = _last_written(root)
        workers = self.nodes.processes()
        tasks = [one for one, title in workers if not RAYS_OWN.search(title)]
        trainers = [one for one, title in workers if "RayTrainWorker" in title]
        candidates = {"task": tasks, "worker": trainers}
        victims = [victim for victim in VICTIMS if candidates.get(victim, [None])]
        victim = str(self.rng.choice(victims))
        if victim == "driver":
            driver.kill()
            driver.wait()
        elif victim == "node":
            self.nodes.kill(int(self.rng.integers(len(self.nodes))))
            self.nodes.add()
        else:
            process = candidates[victim][int(self.rng.integers(len(candidates[victim])))]
            try:
                process.kill()
            except psutil.NoSuchProcess:
                return  # it has just ended by itself
        self.kills.append(Kill(victim, stage, round(self.seconds, 1)))
        self.on_kill(self.kills[-1])


def _life(root: Path) -> tuple[int, int]:
    """Return how many files a run has and how long its metrics are; either changes when it gets on."""
    metrics = root / "training" / METRICS_FILE
    n_files = sum(1 for path in root.rglob("*") if path.suffix in (".arrow", ".parquet", ".json", ".pt"))
    return n_files, metrics.stat().st_size if metrics.exists() else 0


def _last_written(root: Path) -> str:
    """Return the artifact with the newest file."""
    written = [(path.stat().st_mtime_ns, path) for path in (*root.rglob("part-*"), *root.glob("*/metrics.jsonl"))]
    return max(written)[1].relative_to(root).parts[0] if written else "none"


def _temporary_files() -> set[str]:
    """Return ours in the directory for temporary files."""
    return {path.name for path in Path(tempfile.gettempdir()).glob("distspectral-*")}

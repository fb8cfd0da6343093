"""Runs on a cluster whose processes are killed, one after the other, beside the same runs left alone.

A kill waits until the run has got on since the last one, so that a run always ends. Who dies is drawn by a seed; when,
the machine decides.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow.parquet as pq
import yaml
from sklearn.metrics import adjusted_rand_score

from distspectral.datasets import Mixture, write_mixture
from distspectral.errors import DistSpectralError

VICTIMS = ("task", "worker", "node", "driver")
"""A process that runs a task or embeds, one that trains, a node with all its processes, or the run's own process."""

NODE = {"num_cpus": 1, "object_store_memory": 80 << 20}
N_NODES = 3
NODE_STARTS = 3
DIM = 16
N_CLUSTERS = 8
PAUSE_S = 3.0
"""Longest time from a sign of life to the next kill."""
PATIENCE_S = 300.0
"""A run that shows no sign of life for so long hangs."""
DETERMINISTIC = ("vectors", "neighbors", "graph")
"""Artifacts that are the same bits however they were made."""
FROM_MODEL = ("model", "clusters", "output")
"""The same, given the same training."""


class ChaosError(DistSpectralError):
    """A killed run did not come to its end."""


@dataclasses.dataclass
class Kill:
    """What died, and when.

    Attributes:
        victim: one of :data:`VICTIMS`.
        stage: artifact that was last written to before.
        seconds: since the first run began.
    """

    victim: str
    stage: str
    seconds: float


def bench_chaos(
    root: Path, *, n_rows: int, n_shards: int, n_kills: int, seed: int, on_kill: Callable[[Kill], None] | None = None
) -> dict[str, Any]:
    """Kill until ``n_kills`` have happened, let the runs end, and compare them with one that was left alone.

    Args:
        root: an empty directory.
        n_rows: N, generated, of 16 features.
        n_shards: source shards, of equal size.
        n_kills: over as many runs as it takes.
        seed: decides who dies.
        on_kill: hears of each.

    Returns:
        ``kills`` by victim, ``timeline``, ``runs``, ``failed_drivers`` (runs that ended with an error of Ray's and were
        started again), ``exactly_once`` (every row is in the output once, in its place), ``same_bits`` by artifact,
        ``label_agreement`` (adjusted Rand index of killed and calm runs, at least), ``ritz_sum`` of the calm run and of
        the killed ones, ``seconds``.

    Raises:
        ChaosError: a run hung, or failed again and again.
    """
    data = root / "data"
    write_mixture(str(data), Mixture(DIM, n_clusters=N_CLUSTERS), n_rows, rows_per_shard=-(-n_rows // n_shards))
    calm = _write_config(root, "calm", None)
    _finish(_start(calm, root / "calm.log", local=True), root / "calm.log")
    killer = _Killer(np.random.default_rng(seed), n_kills, on_kill or (lambda kill: None))
    found: list[dict[str, Any]] = []
    try:
        while not found or len(killer.kills) < n_kills:
            config = _write_config(root, f"killed-{len(found)}", killer.address)
            killer.run(config, root / f"killed-{len(found)}")
            found.append(_compare(root, config, root / f"killed-{len(found)}"))
    finally:
        killer.close()
    return {
        "rows": n_rows,
        "shards": n_shards,
        "kills": dict(Counter(kill.victim for kill in killer.kills)),
        "timeline": [dataclasses.asdict(kill) for kill in killer.kills],
        "runs": len(found),
        "failed_drivers": killer.failed_drivers,
        "exactly_once": all(one["exactly_once"] for one in found),
        "same_bits": {name: all(one["same_bits"][name] for one in found) for name in found[0]["same_bits"]},
        "label_agreement": min(one["label_agreement"] for one in found),
        "ritz_sum": {"calm": _ritz_sum(root / "calm"), "killed": [one["ritz_sum"] for one in found]},
        "seconds": time.monotonic() - killer.began,
    }


class _Killer:
    """A cluster of its own, and the runs on it.

    Args:
        rng: draws victims and pauses.
        n_kills: in all.
        on_kill: hears of each.
    """

    def __init__(self, rng: np.random.Generator, n_kills: int, on_kill: Callable[[Kill], None]) -> None:
        os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_AUTH_MODE="disabled")
        from ray.cluster_utils import Cluster

        self.rng, self.n_kills, self.on_kill = rng, n_kills, on_kill
        self.kills: list[Kill] = []
        self.failed_drivers = 0
        self.began = time.monotonic()
        self.cluster = Cluster(
            initialize_head=True,
            head_node_args={**NODE, "include_dashboard": False, "dashboard_agent_listen_port": 0},
        )
        for _ in range(N_NODES - 1):
            self._add_node()

    @property
    def address(self) -> str:
        return str(self.cluster.address)

    def run(self, config: Path, root: Path) -> None:
        """Run a config to its end, killing on the way; a driver that is dead starts again."""
        log = root.with_suffix(".log")
        driver = _start(config, log)
        try:
            while (ended := self._until_alive(root, driver)) != 0:
                if ended is not None:
                    self.failed_drivers += 1
                    if self.failed_drivers > self.n_kills:
                        raise ChaosError(f"{config}: failed again and again: {_tail(log)}")
                elif len(self.kills) == self.n_kills:
                    time.sleep(0.5)
                else:
                    self._kill(driver, root)
                if driver.poll() not in (None, 0):
                    driver = _start(config, log)
        finally:
            driver.kill()
            driver.wait()

    def _until_alive(self, root: Path, driver: subprocess.Popen[bytes]) -> int | None:
        """Wait for the next sign of life and a moment longer; return the driver's exit code, if it has ended."""
        before, deadline = _life(root), time.monotonic() + PATIENCE_S
        pause = self.rng.uniform(0, PAUSE_S)
        while driver.poll() is None:
            if _life(root) != before:
                time.sleep(pause)
                return driver.poll()
            if time.monotonic() > deadline:
                raise ChaosError(f"{root}: nothing happened for {PATIENCE_S:.0f} s: {_tail(root.with_suffix('.log'))}")
            time.sleep(0.1)
        return driver.returncode

    def _kill(self, driver: subprocess.Popen[bytes], root: Path) -> None:
        """Kill one of those that can be killed now."""
        stage = _last_written(root)
        workers = self._workers()
        tasks = [one for one, title in workers if "IDLE" not in title and "Train" not in title]
        trainers = [one for one, title in workers if "RayTrainWorker" in title]
        candidates = {"task": tasks, "worker": trainers, "node": sorted(self.cluster.worker_nodes, key=id)}
        victims = [victim for victim in VICTIMS if candidates.get(victim, [driver])]
        victim = str(self.rng.choice(victims))
        if victim == "driver":
            driver.kill()
            driver.wait()
        elif victim == "node":
            node = candidates["node"][int(self.rng.integers(len(candidates["node"])))]
            self.cluster.remove_node(node, allow_graceful=False)
            self._add_node()
        else:
            process = candidates[victim][int(self.rng.integers(len(candidates[victim])))]
            try:
                process.kill()
            except psutil.NoSuchProcess:
                return  # it has just ended by itself
        self.kills.append(Kill(victim, stage, round(time.monotonic() - self.began, 1)))
        self.on_kill(self.kills[-1])

    def _add_node(self) -> None:
        """Start a node; Ray itself gives up after half a minute, which a busy machine may need."""
        for attempt in range(NODE_STARTS):
            try:
                self.cluster.add_node(**NODE)
                return
            except Exception as error:  # Ray raises nothing narrower
                if attempt == NODE_STARTS - 1:
                    raise ChaosError(f"a node of the cluster did not start: {error}") from error

    def _workers(self) -> list[tuple[psutil.Process, str]]:
        """Return the processes on all nodes that work for a run, with what they say they do."""
        found = []
        for node in [self.cluster.head_node, *self.cluster.worker_nodes]:
            for raylet in node.all_processes["raylet"]:
                for child in psutil.Process(raylet.process.pid).children():
                    try:
                        title = " ".join(child.cmdline())
                    except psutil.Error:
                        continue
                    if title.startswith("ray::"):
                        found.append((child, title))
        return sorted(found, key=lambda one: one[0].pid)

    def close(self) -> None:
        self.cluster.shutdown()


def _write_config(root: Path, name: str, address: str | None) -> Path:
    """Write the config of a run that takes a minute or so and return its path."""
    values = {
        "name": name,
        "root": str(root / name),
        "data": {"path": str(root / "data"), "id_column": "id"},
        "representation": "input",
        "affinity": {"space": "euclidean"},
        "network": {"hidden": [64]},
        "train": {"batch_size": 512, "max_steps": 2000, "window_steps": 50, "checkpoint_steps": 100, "patience": 0},
        "cluster": {"n_clusters": N_CLUSTERS},
        "ray": {"address": address, "workers": {"min": 1, "max": 2, "check_s": 10}, "task_retries": 1000},
    }
    path = root / f"{name}.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def _start(config: Path, log: Path, *, local: bool = False) -> subprocess.Popen[bytes]:
    """Start ``distspectral run`` in a process of its own; what it says goes to the end of ``log``."""
    command = [sys.executable, "-m", "distspectral", "run", str(config), "--json", *(["--local"] if local else [])]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "10"}
    with log.open("ab") as stream:
        return subprocess.Popen(command, env=environment, stdout=stream, stderr=stream)


def _finish(process: subprocess.Popen[bytes], log: Path) -> None:
    if process.wait():
        raise ChaosError(f"the run left alone failed: {_tail(log)}")


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-2000:]


def _life(root: Path) -> tuple[int, int]:
    """Return how many files a run has and how long its metrics are; either changes when it gets on."""
    metrics = root / "training" / "metrics.jsonl"
    n_files = sum(1 for path in root.rglob("*") if path.suffix in (".arrow", ".parquet", ".json", ".pt"))
    return n_files, metrics.stat().st_size if metrics.exists() else 0


def _last_written(root: Path) -> str:
    """Return the artifact with the newest file."""
    written = [(path.stat().st_mtime_ns, path) for path in root.rglob("part-*")] + [
        (path.stat().st_mtime_ns, path) for path in root.glob("*/metrics.jsonl")
    ]
    return max(written)[1].relative_to(root).parts[0] if written else "none"


def _compare(root: Path, config: Path, killed: Path) -> dict[str, Any]:
    """Return how a killed run differs from the calm one, and from itself embedded again in peace."""
    calm = root / "calm"
    same = {name: _bits(killed / name) == _bits(calm / name) for name in DETERMINISTIC}
    ids, clusters = _rows(killed)
    expected, calm_clusters = _rows(calm)
    before = {name: _bits(killed / name) for name in FROM_MODEL}
    for name in FROM_MODEL:
        (killed / name / "manifest.json").unlink()
        for path in (killed / name).rglob("*"):
            if path.is_file():
                path.unlink()
    log = killed.with_suffix(".log")
    _finish(_start(config, log, local=True), log)
    same |= {name: _bits(killed / name) == before[name] for name in FROM_MODEL}
    once = len(ids) == len(expected) and all(map(np.array_equal, ids, expected))
    return {
        "same_bits": same,
        "exactly_once": once,
        "label_agreement": float(adjusted_rand_score(calm_clusters, clusters)) if once else 0.0,
        "ritz_sum": _ritz_sum(killed),
    }


def _bits(folder: Path) -> dict[str, str]:
    """Return the checksum of each data file of an artifact."""
    files = [*folder.glob("part-*"), *folder.glob("*.pt")]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(files)}


def _rows(root: Path) -> tuple[list[Any], Any]:
    """Return the ids of each output shard, and the clusters of all rows."""
    tables = [pq.read_table(path, columns=["id", "cluster"]) for path in sorted((root / "output").glob("part-*"))]
    return [table["id"].to_numpy() for table in tables], np.concatenate([t["cluster"].to_numpy() for t in tables])


def _ritz_sum(root: Path) -> float:
    """Return the sum of the Ritz values after calibration."""
    manifest = json.loads((root / "model" / "manifest.json").read_text())
    return float(sum(manifest["properties"]["ritz_values"]))

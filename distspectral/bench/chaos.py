"""Runs on a cluster whose processes are killed, one after the other, beside the same run left alone."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from sklearn.metrics import adjusted_rand_score

from distspectral.bench.killer import Kill, Killer
from distspectral.bench.nodes import ChaosError, start_run, tail, write_run
from distspectral.datasets import Mixture, write_mixture
from distspectral.storage.artifact.directory import MANIFEST

DIM = 16
N_CLUSTERS = 8
TRAIN = {"batch_size": 512, "window_steps": 50, "checkpoint_steps": 100, "patience": 0, "device": "cpu"}
RAY = {"workers": 2, "task_retries": 1000}
"""Not elastic: Ray would hold what an elastic group of a killed driver had asked for, three minutes each time."""
DETERMINISTIC = ("vectors", "neighbors", "graph")
"""Artifacts that are the same bits however they were made."""
FROM_MODEL = ("model", "clusters", "output")
"""The same, given the same training."""


def bench_chaos(
    root: Path,
    *,
    n_rows: int,
    n_shards: int,
    n_kills: int,
    minutes: float,
    steps: int,
    seed: int,
    on_kill: Callable[[Kill], None],
) -> dict[str, Any]:
    """Kill until ``n_kills`` have happened, let the runs end, and compare them with one that was left alone.

    Args:
        root: an empty directory.
        n_rows: N, generated, of 16 features.
        n_shards: source shards, of equal size.
        n_kills: over as many runs as it takes.
        minutes: go on with kills and runs at least so long.
        steps: of training.
        seed: decides who dies.
        on_kill: hears of each.

    Returns:
        ``kills`` by victim, ``timeline``, ``runs`` (of each: :class:`~distspectral.bench.killer.Ended`, and what
        follows), ``exactly_once`` (every row is in the output once, in its place), ``same_bits`` by artifact,
        ``label_agreement`` (adjusted Rand index of killed and calm runs, at least), ``ritz_sum`` of the calm run and of
        the killed ones, ``seconds``.

    Raises:
        ChaosError: a run hung, or failed again and again.
    """
    data, train = root / "data", TRAIN | {"max_steps": steps}
    write_mixture(str(data), Mixture(DIM, n_clusters=N_CLUSTERS), n_rows, rows_per_shard=-(-n_rows // n_shards))
    _run_alone(write_run(root, "calm", data, N_CLUSTERS, train=train), root / "calm.log")
    killer = Killer(seed, n_kills, minutes, on_kill)
    found: list[dict[str, Any]] = []
    try:
        while not found or not killer.is_done:
            name = f"killed-{len(found)}"
            ray = RAY | {"address": killer.nodes.address}
            config = write_run(root, name, data, N_CLUSTERS, train=train, ray=ray)
            ended = killer.run(config, root / name)
            found.append(dataclasses.asdict(ended) | _compare(root, config, root / name))
    finally:
        killer.nodes.close()
    return {
        "rows": n_rows,
        "shards": n_shards,
        "kills": dict(Counter(kill.victim for kill in killer.kills)),
        "timeline": [dataclasses.asdict(kill) for kill in killer.kills],
        "runs": found,
        "exactly_once": all(one["exactly_once"] for one in found),
        "same_bits": {name: all(one["same_bits"][name] for one in found) for name in found[0]["same_bits"]},
        "label_agreement": min(one["label_agreement"] for one in found),
        "ritz_sum": {"calm": _ritz_sum(root / "calm"), "killed": [one["ritz_sum"] for one in found]},
        "seconds": killer.seconds,
    }


def _run_alone(config: Path, log: Path) -> None:
    if start_run(config, log, local=True).wait():
        raise ChaosError(f"the run left alone failed: {tail(log)}")


def _compare(root: Path, config: Path, killed: Path) -> dict[str, Any]:
    """Return how a killed run differs from the calm one, and from itself embedded again in peace."""
    calm = root / "calm"
    same = {name: _bits(killed / name) == _bits(calm / name) for name in DETERMINISTIC}
    ids, clusters = _rows(killed)
    expected, calm_clusters = _rows(calm)
    before = {name: _bits(killed / name) for name in FROM_MODEL}
    for name in FROM_MODEL:
        (killed / name / MANIFEST).unlink()
        for path in (killed / name).rglob("*"):
            if path.is_file():
                path.unlink()
    _run_alone(config, killed.with_suffix(".log"))
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
    manifest = json.loads((root / "model" / MANIFEST).read_text())
    return float(sum(manifest["properties"]["ritz_values"]))

"""The whole pipeline on generated rows of known intrinsic dimension, size after size, each run in a process of its own.

How cost grows is the slope of log seconds over log rows. What the driver itself takes, which starts tasks and adds up
what they return, is told apart: under Ray it is a process of its own. At the smallest size the learned functions are
compared with the exact eigenvectors of the same graph.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from distspectral.bench.spectrum import compare_with_exact
from distspectral.config.load import parse_config
from distspectral.datasets import Mixture, write_mixture
from distspectral.errors import DistSpectralError
from distspectral.storage.artifact.directory import Artifact

EXACT_ROWS = 200_000
"""Most rows whose exact eigenvectors are asked for."""


def compare_sizes(
    rows: Sequence[int],
    mixture: Mixture,
    overrides: Sequence[str],
    root: str,
    local: bool,
    on_result: Callable[[dict[str, Any]], None] = lambda result: None,
) -> dict[str, Any]:
    """Return what each size took and found, and by stage how seconds grow with rows.

    Args:
        rows: sizes; each has its own directory under the root, and what is finished there is taken as it is.
        mixture: what rows are drawn from.
        overrides: of the config, whose other values are the defaults.
        root: directory for data and runs.
        local: without Ray.
        on_result: called with each size as it is done.

    Raises:
        DistSpectralError: a run failed.
    """
    sizes = []
    for n_rows in sorted(rows):
        path = _write_config(n_rows, mixture, overrides, root)
        metrics = _run(path, local)
        sizes.append(_facts(metrics))
        if len(sizes) == 1 and n_rows <= EXACT_ROWS:
            sizes[0]["exact"] = compare_with_exact(Artifact(f"{root}/run-{n_rows}"))
        on_result(sizes[-1])
    shape = {"dim": mixture.dim, "intrinsic_dim": mixture.intrinsic_dim, "n_clusters": mixture.n_clusters}
    found = {"data": shape, "overrides": list(overrides), "sizes": sizes, "exponents": exponents(sizes)}
    return found | {"driver_growth": driver_growth(sizes)}


def exponents(sizes: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return by stage that all sizes have the slope of log seconds over log rows; none of fewer than two sizes."""
    if len(sizes) < 2:
        return {}
    logs = np.log([one["rows"] for one in sizes])
    return {
        stage: float(np.polyfit(logs, np.log([max(one["seconds"][stage], 1e-3) for one in sizes]), 1)[0])
        for stage in sizes[0]["seconds"]
        if all(stage in one["seconds"] for one in sizes)
    }


def driver_growth(sizes: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return what the driver itself took for one more row, from the smallest size to the largest; none of one size.

    ``core_seconds`` are those of all stages, ``bytes`` those of the stage in which it held most.
    """
    if len(sizes) < 2:
        return {}
    first, last = sizes[0], sizes[-1]
    rows = last["rows"] - first["rows"]
    return {
        "core_seconds": (last["driver_core_seconds"] - first["driver_core_seconds"]) / rows,
        "bytes": (last["driver_bytes"] - first["driver_bytes"]) / rows,
    }


def _facts(metrics: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "rows": metrics["n_rows"],
        "seconds": metrics["seconds"],
        "busy": metrics["busy"],
        "peak_rss_bytes": metrics["peak_rss_bytes"],
        "driver": metrics["driver"],
        "driver_core_seconds": sum(one["core_seconds"] for one in metrics["driver"].values()),
        "driver_bytes": max(one["bytes"] for one in metrics["driver"].values()),
        "recall": metrics["neighbors"].get("reached_recall", 1.0),  # few rows are searched exactly
        "components": metrics["graph"]["components"],
        "edges_per_second": metrics["train"]["edges_per_second"],
        "steps": metrics["train"]["steps"],
        "inputs": metrics["calibrate"]["inputs"],
        "agreement": metrics.get("embed", {}).get("agreement"),
    }


def _write_config(n_rows: int, mixture: Mixture, overrides: Sequence[str], root: str) -> Path:
    """Write shards and config of one size; what is there already is kept."""
    data = f"{root}/data-{n_rows}"
    write_mixture(data, mixture, n_rows)
    values = {
        "name": f"rows-{n_rows}",
        "root": f"{root}/run-{n_rows}",
        "data": {"path": data, "id_column": "id", "label_column": "label"},
        "cluster": {"n_clusters": mixture.n_clusters},
    }
    config = parse_config(yaml.safe_dump(values), "bench end-to-end", overrides)
    path = Path(root, f"run-{n_rows}.yaml")
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    return path


def _run(path: Path, local: bool) -> dict[str, Any]:
    """Run a config in a process of its own, its progress on stderr, and return its metrics."""
    command = [sys.executable, "-m", "distspectral", "run", str(path), "--json", *(["--local"] if local else [])]
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if ended.returncode:
        raise DistSpectralError(f"bench end-to-end: {path} ended with {ended.returncode}; run it again to go on")
    metrics: dict[str, Any] = json.loads(ended.stdout)
    return metrics

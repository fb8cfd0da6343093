"""The plan beside what happened: a machine's rates, measured just before each of several runs in one thread.

Each run is a process of its own without Ray, so that a stage's core-seconds can be told from its seconds.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from distspectral.config.load import parse_config
from distspectral.config.run import RunConfig
from distspectral.costs.machines import Machines
from distspectral.datasets import Mixture, write_mixture
from distspectral.errors import DistSpectralError
from distspectral.planning.bills import stage_bills
from distspectral.planning.machines import MEASURED, this_machine
from distspectral.planning.measure import measure
from distspectral.storage.source.dataset import Source

STEPS = 60
"""Of every training: enough to be timed, and plateaus cannot end it."""


def compare_plan(rows: Sequence[int], dim: int, overrides: Sequence[str], root: str) -> dict[str, Any]:
    """Return by size and stage what was predicted and what it took, with the relative error.

    Args:
        rows: sizes, each a run.
        dim: features of the generated rows.
        overrides: of the config.
        root: an empty or new directory for data and runs.

    Raises:
        DistSpectralError: a run failed.
    """
    source = Source.open(_config(max(rows), dim, overrides, root).data)
    sizes = []
    for n_rows in sorted(rows):
        rates = measure(_config(max(rows), dim, overrides, root), source, root)  # a virtual machine's speed varies
        whole = this_machine(1, rates.disk_read, rates.disk_write)
        one_core = Machines("one core", "cpu", 1, 1, dataclasses.replace(whole.node, cores=1), MEASURED, uses_ray=False)
        config = _config(n_rows, dim, overrides, root)
        recipe = config.recipe(dim, n_rows)
        bills = stage_bills(n_rows, recipe, config.settings(recipe), rates, one_core)
        found = _run(config, f"{root}/run-{n_rows}")
        stages = {
            bill.stage: _compared(bill.seconds, found["seconds"][bill.stage], found["core_seconds"][bill.stage])
            for bill in bills
        }
        totals = (sum(one[key] for one in stages.values()) for key in ("predicted", "seconds", "core_seconds"))
        kept = sum(bill.kept for bill in bills)
        sizes.append(
            {
                "rows": n_rows,
                "stages": stages,
                "all": _compared(*totals),
                "kept_bytes": {"predicted": kept, "found": found["kept_bytes"]},
                "peak_rss_bytes": {
                    "predicted": max(one.worker_bytes + one.driver_bytes for one in bills) - rates.base_bytes,
                    "found": found["peak_rss_bytes"],
                },
                "rates": rates.model_dump(),
            }
        )
    return {"dim": dim, "cpu_count": os.cpu_count(), "sizes": sizes}


def _compared(predicted: float, seconds: float, core_seconds: float) -> dict[str, float]:
    errors = {"error": predicted / max(seconds, 1e-3) - 1, "core_error": predicted / max(core_seconds, 1e-3) - 1}
    return {"predicted": predicted, "seconds": seconds, "core_seconds": core_seconds, **errors}


def _config(n_rows: int, dim: int, overrides: Sequence[str], root: str) -> RunConfig:
    data = f"{root}/data-{n_rows}"
    write_mixture(data, Mixture(dim), n_rows)
    brief = {"max_steps": STEPS, "patience": 0}
    values = {
        "name": "bench-plan",
        "root": f"{root}/run-{n_rows}",
        "data": {"path": data, "id_column": "id", "label_column": "label"},
        "cluster": {"n_clusters": Mixture(dim).n_clusters},
        "autoencoder": brief,
        "siamese": brief,
        "train": brief,
        "distill": brief,
        "ray": {"enabled": False},
    }
    return parse_config(yaml.safe_dump(values), "bench plan", overrides)


def _run(config: RunConfig, root: str) -> dict[str, Any]:
    """Run a config in a process of its own and return its times."""
    Path(root).mkdir(parents=True, exist_ok=True)
    path, result = Path(f"{root}.yaml"), Path(f"{root}.json")
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    command = [sys.executable, "-m", "distspectral.bench.timed_run", str(path), str(result)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise DistSpectralError(f"bench plan: the run {root} ended with {ended.returncode}: {ended.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(result.read_text())
    return found

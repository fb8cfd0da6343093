"""A run in one JSON object: sizes, seconds, memory, what each stage found and, where labels exist, scores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distspectral.stages.stage import Stage
from distspectral.storage.artifact.manifest import Manifest


def run_metrics(name: str, stages: Mapping[str, Stage], manifests: Mapping[str, Manifest]) -> dict[str, Any]:
    """Return what ``metrics.json`` holds: of the run, then by stage; seconds are those of when an artifact was made.

    Args:
        name: of the run.
        stages: by name, in order.
        manifests: likewise.
    """
    vectors = manifests["pack"]
    metrics: dict[str, Any] = {
        "name": name,
        "fingerprint": list(manifests.values())[-1].fingerprint,
        "n_rows": vectors.n_rows,
        "dim": vectors.properties["dim"],
        "n_shards": len(vectors.properties["source_shards"]),
        "seconds": {stage: float(made.metrics.get("seconds", 0.0)) for stage, made in manifests.items()},
        "busy": {stage: _busy(made) for stage, made in manifests.items() if "core_seconds" in made.metrics},
        "peak_rss_bytes": max(made.metrics.get("peak_rss_bytes", 0) for made in manifests.values()),
        "driver": {stage: _driver(made) for stage, made in manifests.items() if "driver_bytes" in made.metrics},
    }
    found = {stage.name: stage.facts(manifests) for stage in stages.values()}
    return metrics | {stage: facts for stage, facts in found.items() if facts}


def _busy(made: Manifest) -> dict[str, float]:
    """Return the shares of a stage's slots that its workers, and its driver, kept busy while it ran."""
    slot_seconds = max(made.metrics["seconds"] * made.metrics["slots"], 1e-9)
    return {kind: spent / slot_seconds for kind, spent in made.metrics["core_seconds"].items()}


def _driver(made: Manifest) -> dict[str, float]:
    """Return what the driver itself took of a stage: core-seconds, and memory at its peak without files that it maps.

    In one process the work of tasks counts as theirs, and its memory as the driver's.
    """
    return {"core_seconds": made.metrics["core_seconds"]["driver"], "bytes": made.metrics["driver_bytes"]}


def scores(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a run's metrics says how well it did by labels: ``agreement`` or ``retrieval``, if it had any."""
    told = {**metrics.get("embed", {}), **metrics.get("evaluate", {})}
    return {name: told[name] for name in ("agreement", "retrieval") if name in told}

"""A run in one JSON object: sizes, seconds, memory, graph, training and, where labels exist, agreement."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distspectral.storage.manifest import Manifest

METRICS = "metrics.json"
PAGE = "report.html"
STAGES = {
    "pack": ("pack",),
    "graph": ("neighbors", "graph"),
    "train": ("train",),
    "calibrate": ("calibrate",),
    "cluster": ("cluster",),
    "embed": ("embed",),
}
"""The stages that users name, and the links of the chain behind each."""
SEARCH = (
    "cells",
    "copies",
    "predicted_recall",
    "reached_recall",
    "completed_rows",
    "surplus_duplicates",
    "components_before",
    "links",
)
"""What a search says of itself; most of it only where rows were cut into cells."""


def run_metrics(name: str, manifests: Mapping[str, Manifest], n_shards: int) -> dict[str, Any]:
    """Return what ``metrics.json`` holds; seconds are those of when each artifact was made.

    Args:
        name: of the run.
        manifests: of every stage, by its name.
        n_shards: shards of the source.
    """
    vectors, graph, training = manifests["pack"], manifests["graph"], manifests["train"].metrics
    neighbors = manifests["neighbors"].metrics
    model, clusters = manifests["calibrate"].properties, manifests["cluster"].properties
    metrics: dict[str, Any] = {
        "name": name,
        "fingerprint": manifests["embed"].fingerprint,
        "n_rows": vectors.n_rows,
        "dim": vectors.properties["dim"],
        "n_shards": n_shards,
        "seconds": stage_seconds(manifests),
        "peak_rss_bytes": max(manifest.metrics.get("peak_rss_bytes", 0) for manifest in manifests.values()),
        "graph": {key: graph.properties[key] for key in ("k", "components", "largest_component_share")}
        | {key: neighbors[key] for key in SEARCH if key in neighbors},
        "train": {key: training[key] for key in ("steps", "edges_per_second", "stopped_because", "ritz_values")},
        "calibrate": {key: model[key] for key in ("n_components", "ritz_values", "suggested_n_clusters")},
        "cluster": {"n_clusters": clusters["n_clusters"]},
    }
    if evaluation := manifests["embed"].metrics.get("evaluate"):
        metrics["evaluate"] = evaluation
    return metrics


def stage_seconds(manifests: Mapping[str, Manifest]) -> dict[str, float]:
    """Return wall-clock seconds by the stage names users see."""
    return {
        shown: sum(float(manifests[stage].metrics.get("seconds", 0.0)) for stage in stages)
        for shown, stages in STAGES.items()
    }

"""A run in one JSON object: sizes, seconds, memory, what each stage found and, where labels exist, scores."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from distspectral.spectral.capacity import edge_check
from distspectral.stages.plan import embedded_graph
from distspectral.storage.artifact.manifest import Manifest

METRICS = "metrics.json"
PAGE = "report.html"
COMMANDS = {
    "pack": ("pack",),
    "represent": ("autoencoder", "codes"),
    "graph": ("neighbors", "graph"),
    "siamese": ("siamese", "features", "reweight", "siamese_neighbors", "siamese_graph"),
    "train": ("train",),
    "calibrate": ("calibrate",),
    "cluster": ("cluster",),
    "embed": ("embed", "encode"),
    "evaluate": ("evaluate",),
}
"""The stages that users name, and the links of a chain behind each."""
TRAINING = ("steps", "skipped_steps", "stopped_because")
"""What any training says of itself; artifacts made before steps could be skipped do not tell of it."""
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


def stages_of(chain: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return the stages of a chain that users name, and the links behind each."""
    links = set(chain)
    named = {name: tuple(stage for stage in stages if stage in links) for name, stages in COMMANDS.items()}
    return {name: stages for name, stages in named.items() if stages}


def run_metrics(name: str, manifests: Mapping[str, Manifest], n_shards: int) -> dict[str, Any]:
    """Return what ``metrics.json`` holds; seconds are those of when each artifact was made.

    Args:
        name: of the run.
        manifests: of every stage, by its name, in order.
        n_shards: shards of the source.
    """
    vectors = manifests["pack"]
    metrics: dict[str, Any] = {
        "name": name,
        "fingerprint": list(manifests.values())[-1].fingerprint,
        "n_rows": vectors.n_rows,
        "dim": vectors.properties["dim"],
        "n_shards": n_shards,
        "seconds": stage_seconds(manifests),
        "peak_rss_bytes": max(manifest.metrics.get("peak_rss_bytes", 0) for manifest in manifests.values()),
    }
    if quarantine := vectors.metrics.get("quarantine"):
        metrics["quarantine"] = quarantine
    return metrics | (_of_spectral(manifests) if "calibrate" in manifests else _of_metric(manifests))


def _of_spectral(manifests: Mapping[str, Manifest]) -> dict[str, Any]:
    graph, training = manifests[embedded_graph(manifests)], manifests["train"].metrics
    neighbors = manifests["neighbors"].metrics
    model, clusters = manifests["calibrate"].properties, manifests["cluster"].properties
    metrics: dict[str, Any] = {
        "graph": {key: graph.properties[key] for key in ("k", "components", "largest_component_share")}
        | {key: neighbors[key] for key in SEARCH if key in neighbors},
        "train": {key: training[key] for key in (*TRAINING, "edges_per_second", "ritz_values") if key in training},
        "calibrate": {key: model[key] for key in ("n_components", "inputs", "ritz_values", "suggested_n_clusters")},
        "cluster": {"n_clusters": clusters["n_clusters"]},
    }
    trained, drawn = manifests["train"], training.get("ritz_values")
    if drawn is not None and trained.config["affinity"]["scope"] == "global":  # edges inside batches are other edges
        n_kept = model["n_components"]
        n_drawn = training["steps"] * trained.config["train"]["batch_size"]
        check = edge_check(drawn, model["ritz_values"], n_kept, n_drawn, graph.n_rows * graph.properties["k"])
        metrics["calibrate"]["edges"] = dataclasses.asdict(check)
    if codes := manifests.get("codes"):
        found = manifests["autoencoder"].metrics
        metrics["represent"] = {key: found[key] for key in ("steps", "rows_per_second", "loss")}
        metrics["represent"]["explained_variance"] = codes.properties["explained_variance"]
    if siamese := manifests.get("siamese"):
        shown = ("steps", "pairs_per_second", "loss", "neighbor_distance", "stranger_distance")
        metrics["siamese"] = {key: siamese.metrics[key] for key in shown}
    if evaluation := manifests["embed"].metrics.get("evaluate"):
        metrics["evaluate"] = evaluation
    return metrics


def _of_metric(manifests: Mapping[str, Manifest]) -> dict[str, Any]:
    training = manifests["train"]
    shown = (*TRAINING, "rows_per_second", "loss", "classes_per_step", "rank")
    facts = {key: training.properties[key] for key in ("n_components", "n_train_classes", "n_classes")}
    scores = {k: v for k, v in manifests["evaluate"].metrics.items() if k in ("retrieval", "not_evaluated")}
    return {"train": {key: training.metrics[key] for key in shown if key in training.metrics} | facts, **scores}


def stage_seconds(manifests: Mapping[str, Manifest]) -> dict[str, float]:
    """Return wall-clock seconds by the stage names users see."""
    return {
        shown: sum(float(manifests[stage].metrics.get("seconds", 0.0)) for stage in stages)
        for shown, stages in stages_of(manifests).items()
    }

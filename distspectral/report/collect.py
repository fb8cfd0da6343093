"""The finished artifacts of a run to its report page; nothing is computed anew, rows are only sampled.

Shape letters: N rows, S sampled rows, E components.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from distspectral import __version__
from distspectral.embedding.columns import written_columns
from distspectral.recipes import Recipe
from distspectral.report.data import (
    CapacityFacts,
    ClusterFacts,
    GraphFacts,
    Histogram,
    ReportData,
    ScatterSample,
    Scores,
    SpectrumFacts,
    TrainingFacts,
    TrainingWindow,
)
from distspectral.report.metrics import PAGE, scores
from distspectral.report.page import render
from distspectral.spectral.capacity import EdgeCheck, capacity
from distspectral.stages.stage import Stage
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.artifact.manifest import Manifest
from distspectral.storage.rows.vectors import MappedVectors

SAMPLE_ROWS = 5000
SAMPLE_SHARDS = 64


def write_report(root: Artifact, data: ReportData) -> None:
    """Write the page to ``report.html`` in the run's root, whole or not at all."""
    root.write_bytes(PAGE, render(data).encode())


def collect(
    config: Mapping[str, Any],
    recipe: Recipe,
    stages: Mapping[str, Stage],
    metrics: dict[str, Any],
    artifacts: Mapping[str, Artifact],
    manifests: Mapping[str, Manifest],
) -> ReportData:
    """Return what the page shows.

    Args:
        config: the whole resolved config as plain values.
        recipe: of the run, knowing what its artifacts tell.
        stages: by name, in order.
        metrics: of the run, as in ``metrics.json``.
        artifacts: by stage name.
        manifests: by stage name.
    """
    vectors = manifests["pack"]
    return ReportData(
        name=config["name"],
        created_at=datetime.now(UTC),
        version=__version__,
        config=dict(config),
        n_rows=metrics["n_rows"],
        dim=metrics["dim"],
        n_shards=metrics["n_shards"],
        dtype=vectors.properties["dtype"],
        seconds=metrics["seconds"],
        peak_rss_bytes=metrics["peak_rss_bytes"],
        graph=_graph(manifests, recipe, config["affinity"]),
        training=_training(artifacts["train"], manifests["train"]),
        spectrum=_spectrum(manifests["calibrate"]),
        capacity=_capacity(metrics, manifests["train"]) if "edges" in metrics["calibrate"] else None,
        clusters=_clusters(manifests["embed"]),
        scatter=scatter_sample(artifacts["pack"], artifacts["embed"], manifests["embed"], config["seed"]),
        evaluation=Scores(**found["agreement"]) if (found := scores(metrics)) else None,
        notes=[note for stage in stages.values() if stage.name in metrics for note in stage.notes(metrics)],
    )


def _graph(manifests: Mapping[str, Manifest], recipe: Recipe, affinity: Mapping[str, Any]) -> GraphFacts:
    assert recipe.embedded_graph is not None, "the page is of a run with a graph"
    facts, search = manifests[recipe.embedded_graph].properties, manifests["neighbors"].metrics
    weights = affinity["kind"].replace("_", "-")
    if affinity["space"] == "siamese":
        reweighted = "exp(-d^2 / 2 median)" if "reweight" in manifests else f"{weights}, neighbours searched anew"
        weights = f"of Siamese distances: {reweighted}"
    space = "the vectors"
    if (codes := manifests.get("codes")) is not None:
        explained = f"autoencoder codes keep {codes.properties['explained_variance']:.0%} of unseen rows' variance"
        space = f"{'codes' if recipe.searched == 'codes' else 'the vectors'}; {explained}"
    searched = ("cells", "copies", "predicted_recall", "reached_recall", "links", "components_before")
    copied = ("components", "largest_component_share", "degree_min", "degree_median", "degree_max")
    return GraphFacts(
        n_neighbors=facts["k"],
        affinity=weights,
        space=space,
        degree_histogram=Histogram(**facts["degree_histogram"]),
        **{key: facts[key] for key in copied},
        **{key: search[key] for key in searched if key in search},
    )


def _training(artifact: Artifact, manifest: Manifest) -> TrainingFacts:
    lines = artifact.read_bytes("metrics.jsonl").decode().splitlines() if artifact.has("metrics.jsonl") else []
    windows = [json.loads(line) for line in lines]
    shown = TrainingWindow.model_fields
    return TrainingFacts(
        steps=manifest.metrics["steps"],
        edges_per_second=manifest.metrics["edges_per_second"],
        stopped_because=manifest.metrics["stopped_because"],
        history=[TrainingWindow(**{key: window[key] for key in shown}) for window in windows],
    )


def _spectrum(manifest: Manifest) -> SpectrumFacts:
    values = np.maximum(np.asarray(manifest.properties["ritz_values"], dtype=np.float64), 0.0)
    gaps = np.diff(values) / np.maximum(values[1:], np.finfo(np.float64).tiny)
    return SpectrumFacts(
        ritz_values=values.tolist(),
        n_kept=manifest.properties["n_components"],
        suggested_n_clusters=manifest.properties["suggested_n_clusters"],
        gaps=gaps.tolist(),
    )


def _capacity(metrics: Mapping[str, Any], training: Manifest) -> CapacityFacts:
    shape, check = training.properties, EdgeCheck(**metrics["calibrate"]["edges"])
    widths = [shape["dim"], *shape["hidden"], shape["n_functions"] - 1]
    found = capacity(metrics["n_rows"], widths)
    orders = {"needed": found.needed, "sigmoid": found.sigmoid, "relu": found.relu}
    return CapacityFacts(widths=widths, advice=check.advice, **orders, **metrics["calibrate"]["edges"])


def _clusters(manifest: Manifest) -> ClusterFacts:
    sizes = np.sum([shard.details["cluster_counts"] for shard in manifest.shards], axis=0)
    distances = np.sum([shard.details["distance_sums"] for shard in manifest.shards], axis=0)
    return ClusterFacts(
        n_clusters=len(sizes),
        sizes=[int(size) for size in sizes],
        mean_distance=(distances / np.maximum(sizes, 1)).tolist(),
    )


def scatter_sample(
    vectors: Artifact,
    output: Artifact,
    manifest: Manifest,
    seed: int,
    *,
    most_rows: int = SAMPLE_ROWS,
    most_shards: int = SAMPLE_SHARDS,
) -> ScatterSample:
    """Return a seeded sample of the output: the first two coordinates that are not constant.

    It is empty where the output was written without coordinates or clusters.

    Args:
        vectors: ``vectors`` artifact of the same rows, for labels.
        output: finished ``output`` artifact.
        manifest: of ``output``.
        seed: of the choice.
        most_rows: in the sample.
        most_shards: opened for it; of more, a seeded choice.
    """
    if not {"embedding", "cluster"} <= set(written_columns(manifest)):
        return ScatterSample(x=[], y=[], cluster=[], n_rows_sampled=0)
    generator = np.random.default_rng(seed)
    starts = np.cumsum([0, *(shard.n_rows for shard in manifest.shards)])
    filled = np.flatnonzero([shard.n_rows for shard in manifest.shards])
    chosen = filled[np.sort(generator.choice(len(filled), min(len(filled), most_shards), replace=False))]
    candidates = int(sum(manifest.shards[index].n_rows for index in chosen))
    picks = np.sort(generator.choice(candidates, min(candidates, most_rows), replace=False, shuffle=False))
    columns: list[tuple[NDArray[np.float32], NDArray[np.int32]]] = []
    rows: list[NDArray[np.int64]] = []
    first = 0
    for index in chosen:
        shard = manifest.shards[index]
        local = picks[(picks >= first) & (picks < first + shard.n_rows)] - first
        first += shard.n_rows
        if len(local):
            columns.append(_read_rows(output, shard.name, local))
            rows.append(local + starts[index])
    embedding = np.concatenate([embedding for embedding, _ in columns])
    cluster = np.concatenate([cluster for _, cluster in columns])
    last = embedding.shape[1] - 1
    labels = MappedVectors(vectors).labels()
    return ScatterSample(
        x=embedding[:, min(1, last)].tolist(),
        y=embedding[:, min(2, last)].tolist(),
        cluster=cluster.tolist(),
        labels=None if labels is None else labels.take(np.concatenate(rows)).to_pylist(),
        n_rows_sampled=len(cluster),
    )


def _read_rows(output: Artifact, name: str, rows: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Return embedding (S, E) and cluster (S,) of ascending local rows; only their row groups are read."""
    embeddings, clusters = [], []
    with output.filesystem.open_input_file(output.file_path(name)) as stream:
        file = pq.ParquetFile(stream)
        start = 0
        for group in range(file.num_row_groups):
            stop = start + file.metadata.row_group(group).num_rows
            here = rows[(rows >= start) & (rows < stop)] - start
            start = stop
            if len(here):
                table = file.read_row_group(group, columns=["embedding", "cluster"]).take(here).combine_chunks()
                vectors = table["embedding"].combine_chunks()
                embeddings.append(vectors.flatten().to_numpy().reshape(len(here), -1))
                clusters.append(table["cluster"].to_numpy())
    return np.concatenate(embeddings), np.concatenate(clusters)

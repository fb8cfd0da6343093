"""The finished artifacts of a run to its report page; nothing is computed anew, rows are only sampled.

Shape letters: N rows, S sampled rows, E components.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from distspectral import __version__
from distspectral.embedding.columns import written_columns
from distspectral.recipes import Recipe
from distspectral.report.data import (
    CapacityFacts,
    ClusterFacts,
    GraphFacts,
    ReportData,
    ScatterSample,
    SpectrumFacts,
    TrainingFacts,
)
from distspectral.report.metrics import PAGE, scores
from distspectral.report.page import render
from distspectral.secrets import redacted_values
from distspectral.spectral.capacity import EdgeCheck, capacity
from distspectral.stages.cluster import way_in_words
from distspectral.stages.fragmentation import Fragmentation
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
    shown = {
        "created_at": datetime.now(UTC),
        "version": __version__,
        "config": redacted_values(config),
        "dtype": manifests["pack"].properties["dtype"],
        "graph": _graph(manifests, recipe, config["affinity"]),
        "training": _training(artifacts["train"], manifests["train"]),
        "spectrum": _spectrum(manifests["calibrate"]),
        "certificate": metrics["calibrate"]["certificate"],
        "capacity": _capacity(metrics, manifests["train"]) if "edges" in metrics["calibrate"] else None,
        "clusters": _clusters(manifests["cluster"], manifests["tree"], manifests["embed"]),
        "scatter": scatter_sample(artifacts["pack"], artifacts["embed"], manifests["embed"], config["seed"]),
        "evaluation": scores(metrics).get("agreement"),
        "notes": list(
            dict.fromkeys(note for stage in stages.values() if stage.name in metrics for note in stage.notes(metrics))
        ),
    }
    return ReportData.model_validate(metrics | shown)


def _graph(manifests: Mapping[str, Manifest], recipe: Recipe, affinity: Mapping[str, Any]) -> GraphFacts:
    assert recipe.embedded_graph is not None, "the page is of a run with a graph"
    facts, search = manifests[recipe.embedded_graph].properties, manifests["neighbors"].metrics
    weights = affinity["kind"].replace("_", "-")
    fragmentation = facts.get("fragmentation")
    dropped = fragmentation is not None and Fragmentation(**fragmentation).fragments
    if {"reweight", "siamese_graph"} & manifests.keys() and not dropped:
        reweighted = "exp(-d^2 / 2 median)" if "reweight" in manifests else f"{weights}, neighbours searched anew"
        weights = f"of Siamese distances: {reweighted}"
    space = "the vectors"
    if (codes := manifests.get("codes")) is not None:
        kept = f"{codes.properties['explained_variance']:.0%}"
        explained = f"autoencoder codes keep {kept} of unseen rows' variance"
        if "pca" in manifests:
            explained = f"{codes.properties['dim']} principal components, which keep {kept} of the variance"
        space = f"{'codes' if recipe.searched == 'codes' else 'the vectors'}; {explained}"
    named = {"n_neighbors": facts["k"], "affinity": weights, "space": space}
    return GraphFacts.model_validate({**search, **facts, **named})


def _training(artifact: Artifact, manifest: Manifest) -> TrainingFacts:
    lines = artifact.read_bytes("metrics.jsonl").decode().splitlines() if artifact.has("metrics.jsonl") else []
    return TrainingFacts.model_validate(manifest.metrics | {"history": [json.loads(line) for line in lines]})


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
    orders = vars(capacity(metrics["n_rows"], widths))
    return CapacityFacts.model_validate({"widths": widths, "advice": check.advice, **orders, **vars(check)})


def _clusters(clusters: Manifest, tree: Manifest, output: Manifest) -> ClusterFacts:
    sizes = np.sum([shard.details["cluster_counts"] for shard in output.shards], axis=0)
    distances = np.sum([shard.details["distance_sums"] for shard in output.shards], axis=0)
    return ClusterFacts(
        n_clusters=len(sizes),
        sizes=[int(size) for size in sizes],
        mean_distance=(distances / np.maximum(sizes, 1)).tolist(),
        **{name: tree.properties["clusters"][name] for name in ("silhouette", "conductance", "nearest")},
        found_by=way_in_words(clusters.properties),
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
    tables: list[pa.Table] = []
    rows: list[NDArray[np.int64]] = []
    first = 0
    for index in chosen:
        shard = manifest.shards[index]
        local = picks[(picks >= first) & (picks < first + shard.n_rows)] - first
        first += shard.n_rows
        if len(local):
            tables.append(_read_rows(output, shard.name, local))
            rows.append(local + starts[index])
    table = pa.concat_tables(tables)
    embedding = table["embedding"].combine_chunks().flatten().to_numpy().reshape(len(table), -1)
    last = embedding.shape[1] - 1
    labels = MappedVectors(vectors).labels()
    return ScatterSample(
        x=embedding[:, min(1, last)].tolist(),
        y=embedding[:, min(2, last)].tolist(),
        cluster=table["cluster"].to_pylist(),
        labels=None if labels is None else _named(labels.take(np.concatenate(rows))),
        n_rows_sampled=len(table),
    )


def _named(labels: pa.ChunkedArray) -> list[Any]:
    """Return labels as they are; where some are missing, all as text."""
    named: list[Any] = (labels.cast(pa.string()).fill_null("no label") if labels.null_count else labels).to_pylist()
    return named


def _read_rows(output: Artifact, name: str, rows: NDArray[np.int64]) -> pa.Table:
    """Return ``embedding`` and ``cluster`` of ascending local rows (S,); only their row groups are read."""
    tables = []
    with output.filesystem.open_input_file(output.file_path(name)) as stream:
        file = pq.ParquetFile(stream)
        start = 0
        for group in range(file.num_row_groups):
            stop = start + file.metadata.row_group(group).num_rows
            here = rows[(rows >= start) & (rows < stop)] - start
            start = stop
            if len(here):
                tables.append(file.read_row_group(group, columns=["embedding", "cluster"]).take(here))
    return pa.concat_tables(tables)

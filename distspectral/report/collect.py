"""The finished artifacts of a run to its report page; nothing is computed anew, rows are only sampled.

Shape letters: N rows, S sampled rows, E components, M leaves.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from distspectral import __version__
from distspectral.clustering.fragmentation import Fragmentation
from distspectral.embedding.scores import tally
from distspectral.errors import ConfigError
from distspectral.graph.trial import Trial
from distspectral.recipes import Recipe
from distspectral.report.causes import causes
from distspectral.report.checks import checks, headline
from distspectral.report.data import (
    ClusterFacts,
    Confusion,
    EdgeFacts,
    ExemplarFacts,
    GraphFacts,
    Pictures,
    ReportData,
    SpectrumFacts,
    TaughtFacts,
    TrainingFacts,
    TreeFacts,
)
from distspectral.report.figures import write_figures
from distspectral.report.metrics import scores
from distspectral.report.page import render
from distspectral.report.pictures import Look, picture_look, pictures, row_pictures
from distspectral.report.retrieval import metric_page
from distspectral.report.rows import as_text, carried_cells, row_sample
from distspectral.secrets import redacted_values
from distspectral.spectral.capacity import EdgeCheck
from distspectral.spectral.tree import Tree
from distspectral.stages.cluster import way_in_words
from distspectral.stages.exemplars import FILE
from distspectral.stages.finished_run import PAGE
from distspectral.stages.stage import Stage
from distspectral.stages.tree_files import load_tree
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.artifact.manifest import Manifest
from distspectral.storage.rows.vectors import MappedVectors
from distspectral.training.run_log import read_windows

MOST_LEAVES = 2000
"""Of a larger tree, the page has the top."""
MOST_EXEMPLARS = 2000
"""Of all clusters together; of many clusters, each has fewer."""
SEARCHED_ROWS = 10_000_000
"""Rows up to which exemplars are looked up by their ids, for their pictures."""
MOST_CONFUSED = 1 << 20
"""Labels times clusters up to which the page gets the whole matrix."""


def write_report(
    root: Artifact,
    config: Mapping[str, Any],
    recipe: Recipe,
    stages: Mapping[str, Stage],
    metrics: dict[str, Any],
    artifacts: Mapping[str, Artifact],
    manifests: Mapping[str, Manifest],
    figures: bool = False,
) -> dict[str, Any]:
    """Write the page to ``report.html`` in the run's root, whole or not at all; arguments as of :func:`collect`.

    Returns the ``verdict`` in one sentence and the ``doubts``: what is said, and what helps, by the title of each
    doubtful check; of a learned metric nothing.

    With ``figures``, its pictures are files, too; see :func:`distspectral.report.figures.write_figures`.

    Raises:
        ConfigError: figures are asked for of a run without a graph, which has none.
    """
    if recipe.embedded_graph is None:
        if figures:
            raise ConfigError(f"--figures: are those of objective spectral; {root.uri} is of {recipe.kind}")
        page = metric_page(config, metrics, artifacts, manifests)
        told: dict[str, Any] = {}
    else:
        data = collect(config, recipe, stages, metrics, artifacts, manifests)
        page = render(data)
        doubts = {one.title: " ".join([one.words, *one.remedies]) for one in data.checks if one.status == "look"}
        told = {"verdict": headline(data.checks), "doubts": doubts}
        if figures:
            write_figures(root, data)
    root.write_bytes(PAGE, page.encode())
    return told


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
    vectors, output = MappedVectors(artifacts["pack"]), manifests["embed"]
    sample, rows = row_sample(artifacts["pack"], artifacts["embed"], output, config["seed"])
    exemplars, exemplar_ids = _exemplars(artifacts["exemplars"], manifests["exemplars"])
    look = picture_look(vectors, config["data"]["image_shape"])
    tree, leaves = pruned(load_tree(artifacts["tree"])[0], MOST_LEAVES)
    if sample.leaf is not None:
        sample = sample.model_copy(update={"leaf": leaves[np.asarray(sample.leaf, np.int64)].tolist()})
    notes = {stage.name: stage.notes(metrics) for stage in stages.values() if stage.name in metrics}
    outliers = {} if sample.outlier is None else {"outlier_share": float(np.mean(sample.outlier))}
    assert recipe.embedded_graph is not None, "the page is of a run with a graph"
    named = causes(metrics, recipe.embedded_graph, (artifacts["pack"], manifests["pack"]), sample, rows)
    shown = {
        "created_at": datetime.now(UTC),
        "version": __version__,
        "config": redacted_values(config),
        "root": artifacts["embed"].uri.rpartition("/")[0],
        "dtype": manifests["pack"].properties["dtype"],
        "graph": _graph(manifests, recipe, config["affinity"]),
        "training": _training(artifacts["train"], manifests["train"]),
        "spectrum": _spectrum(manifests["calibrate"]),
        "candidates": metrics["cluster"].get("candidates", []),
        "certificate": metrics["calibrate"]["certificate"],
        "edges": _edges(metrics) if "edges" in metrics["calibrate"] else None,
        "taught": _taught(metrics) if "distill" in metrics else None,
        "clusters": _clusters(manifests["cluster"], manifests["tree"], output),
        "rows": sample,
        "row_pictures": None if look is None or not len(rows) else row_pictures(vectors, look, rows),
        "exemplars": exemplars,
        "exemplar_pictures": None if look is None else _exemplar_pictures(vectors, look, exemplar_ids),
        "tree": tree,
        "confusion": _confusion(output),
        "evaluation": scores(metrics).get("agreement"),
        "checks": checks(metrics | outliers, notes, recipe.embedded_graph, named),
    }
    return ReportData.model_validate(metrics | shown)


def pruned(tree: Tree, most: int) -> tuple[TreeFacts, NDArray[np.int64]]:
    """Return the top of a tree with so many leaves at most, and the leaf (M,) there of each leaf of the whole.

    Args:
        tree: of M leaves.
        most: leaves, at least the run's clusters.
    """
    n_kept = min(tree.n_leaves, max(most, tree.n_clusters))
    kept, leaves = np.unique(tree.tops(n_kept), return_inverse=True)
    nodes = np.concatenate([kept, np.arange(len(tree.rows) - n_kept + 1, len(tree.rows))])
    clusters = np.empty(n_kept, np.int64)
    clusters[leaves] = tree.clusters
    mergers = nodes[n_kept:] - tree.n_leaves
    facts = TreeFacts(
        nodes=nodes.tolist(),
        children=np.searchsorted(nodes, tree.children[mergers]).ravel().tolist(),
        rows=tree.rows[nodes].tolist(),
        affinity=tree.affinity[mergers].tolist(),
        conductance=tree.conductance[nodes].tolist(),
        clusters=clusters.tolist(),
    )
    return facts, leaves.reshape(-1).astype(np.int64)


def _exemplars(artifact: Artifact, manifest: Manifest) -> tuple[ExemplarFacts | None, pa.ChunkedArray | None]:
    """Return the exemplars, the first of each kind where they are many, and their ids as they are."""
    if not manifest.properties["rows"]:
        return None, None
    with artifact.filesystem.open_input_file(artifact.file_path(FILE)) as stream:
        table = pq.read_table(stream)
    ranks = table["rank"].to_numpy()
    most = next(n for n in range(int(ranks.max()) + 1, 0, -1) if n == 1 or (ranks < n).sum() <= MOST_EXEMPLARS)
    table = table.filter(pa.array(ranks < most)).slice(0, MOST_EXEMPLARS)
    own = {"cluster", "kind", "rank", "id", "distance", "margin"}
    columns = {name: cells for name in table.schema.names if name not in own and (cells := carried_cells(table[name]))}
    facts = ExemplarFacts(
        cluster=table["cluster"].to_pylist(), kind=table["kind"].to_pylist(), ids=as_text(table["id"]), columns=columns
    )
    return facts, table["id"]


def _exemplar_pictures(vectors: MappedVectors, look: Look, ids: pa.ChunkedArray | None) -> Pictures | None:
    """Return a picture of each exemplar, found by its id."""
    if ids is None or vectors.n_rows > SEARCHED_ROWS:
        return None
    own = vectors.ids()
    rows = pc.index_in(ids.combine_chunks().cast(own.type), value_set=own.combine_chunks())
    return None if rows.null_count else pictures(vectors, look, rows.to_numpy().astype(np.int64))


def _confusion(output: Manifest) -> Confusion | None:
    found = tally(output.shards, output.properties["n_clusters"])
    if found is None or found[0].size > MOST_CONFUSED:
        return None
    return Confusion(counts=found[0].tolist(), classes=found[1].tolist())


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
    named: dict[str, Any] = {"n_neighbors": facts["k"], "affinity": weights, "space": space}
    if (trial := manifests.get("trial")) is not None:
        named["trial"] = dataclasses.asdict(Trial.of(trial.properties))
    return GraphFacts.model_validate({**search, **facts, **named})


def _training(artifact: Artifact, manifest: Manifest) -> TrainingFacts:
    return TrainingFacts.model_validate(manifest.metrics | {"history": read_windows(artifact)})


def _spectrum(manifest: Manifest) -> SpectrumFacts:
    values = np.maximum(np.asarray(manifest.properties["ritz_values"], dtype=np.float64), 0.0)
    gaps = np.diff(values) / np.maximum(values[1:], np.finfo(np.float64).tiny)
    return SpectrumFacts(
        ritz_values=values.tolist(),
        n_kept=manifest.properties["n_components"],
        gaps=gaps.tolist(),
    )


def _taught(metrics: Mapping[str, Any]) -> TaughtFacts:
    told = {name: metrics["distill"][name] for name in ("steps", "loss", "held_out_loss")}
    return TaughtFacts(passes=metrics["polish"]["passes"], **told)


def _edges(metrics: Mapping[str, Any]) -> EdgeFacts:
    check = EdgeCheck(**metrics["calibrate"]["edges"])
    sampled_rows = metrics["calibrate"].get("sampled_rows")
    return EdgeFacts.model_validate({"advice": check.advice, "sampled_rows": sampled_rows, **vars(check)})


def _clusters(clusters: Manifest, tree: Manifest, output: Manifest) -> ClusterFacts:
    sizes = np.sum([shard.details["cluster_counts"] for shard in output.shards], axis=0)
    distances = np.sum([shard.details["distance_sums"] for shard in output.shards], axis=0)
    quality = tree.properties["clusters"]
    return ClusterFacts(
        n_clusters=len(sizes),
        sizes=[int(size) for size in sizes],
        mean_distance=(distances / np.maximum(sizes, 1)).tolist(),
        **{name: quality[name] for name in ("silhouette", "conductance", "nearest")},
        stability=quality.get("stability"),
        found_by=way_in_words(clusters.properties),
    )

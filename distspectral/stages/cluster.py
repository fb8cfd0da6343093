"""Centroids in the calibrated embedding: k-means on a sample once, never again."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from distspectral.clusters import FRAGMENT, ClusterConfig, diffusion_scale, fit_centroids
from distspectral.costs.bill import Bill
from distspectral.embedding.forward import BLOCK_ROWS, forward
from distspectral.graph.components import component_labels
from distspectral.graph.store import Graph, MappedGraph
from distspectral.models.assigner import Assigner, clustering_coordinates, squared_distances
from distspectral.models.networks import torch_device
from distspectral.spectral.diagnostics import normalized_cut
from distspectral.stages.calibrate import load_calibrated_network
from distspectral.stages.graph import DRIVER_ROW_BYTES, fact_piece
from distspectral.stages.stage import Manifests, Piece, Stage, Work
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.artifact.manifest import Manifest
from distspectral.storage.artifact.output import Output
from distspectral.storage.rows.vectors import MappedVectors, Vectors
from distspectral.training.checkpoint import restored, write_state

CUT_ROWS = 4_000
"""Rows whose edges tell how much of the graph clusters cut."""
FEWER_CUTS = 0.4
"""Normalised cut of the clusters of rows as they are, over that of rows of length 1, below which they are taken.

On images, cells and titles it lies between .54 and 2.4. Where a large cluster was split in place of small ones, it is
below .37."""
AGREED = 0.95
"""Mean adjusted Rand index of restarts below which a report warns, if no second one reached the best solution.

Where two of ten do, the best of the next ten is most likely the same, however bad the others are."""
STRAYED = 0.005
"""Share of rows with a centroid of another part of the graph above which a report warns."""


def cluster(
    vectors: Artifact, model: Artifact, graph: Artifact, output: Output, config: ClusterConfig, seed: int
) -> Manifest:
    """Write the artifact ``clusters``: how coordinates are scaled, and the centroids.

    Args:
        vectors: finished ``vectors`` artifact.
        model: finished ``model`` artifact.
        graph: finished ``graph`` artifact that the model is calibrated on.
        output: where the artifact ``clusters`` goes.
        config: number of clusters, coordinates, k-means.
        seed: of the sample and of k-means.

    Raises:
        TooManyClustersError: more clusters than rows.
    """
    output.begin()
    properties = model.manifest().properties
    in_parts = graph.manifest().properties["components"] > 1
    network = load_calibrated_network(model).to(torch_device("auto"))
    assigner, facts = fit_assigner(
        functools.partial(embedded, network, MappedVectors(vectors)),
        MappedGraph(graph, reread=in_parts),
        np.asarray(properties["ritz_values"][: properties["n_components"]]),
        properties["suggested_n_clusters"] if config.n_clusters == "auto" else config.n_clusters,
        config,
        seed,
        in_parts=in_parts,
    )
    write_state(output.artifact, "clusters.pt", assigner.state())
    return output.commit([], facts, {}, files=("clusters.pt",))


def fit_assigner(
    embed: Callable[[NDArray[np.int64]], NDArray[np.float32]],
    graph: Graph,
    ritz_values: NDArray[np.float64],
    n_clusters: int,
    config: ClusterConfig,
    seed: int,
    *,
    in_parts: bool,
) -> tuple[Assigner, dict[str, Any]]:
    """Return the assigner fitted to a seeded sample of the rows, and facts of the fit.

    Rows of length 1 let every row count alike, so a large cluster that is spread outweighs small ones. Rows as they
    are let small clusters count, and outliers too. Of the two, the graph tells which is right: where clusters of rows
    as they are cut less than :data:`FEWER_CUTS` times as much of it, they are taken, unless one is a mere
    :data:`distspectral.clusters.FRAGMENT`: on tf-idf text they were specks of 4 to 30 rows and one large rest.

    Args:
        embed: returns the P components (n, P) of rows (n,), ascending.
        graph: of all N rows.
        ritz_values: (P,) of those components.
        n_clusters: C.
        config: coordinates and k-means.
        seed: of the sample and of k-means.
        in_parts: whether the graph has several components; none of these is merged while another is split.

    Returns:
        The assigner, and by name: ``n_clusters``; ``n_components``; ``normalize_rows`` and ``variance`` of the
        assigner; ``restarts``, how far the runs of k-means agree; ``parts`` of the graph that were kept apart;
        ``strayed``, the share of rows whose nearest centroid is that of another part, as far as the network does not
        tell parts apart; ``normalized_cuts`` of rows of length 1 and of rows as they are, if both were tried.
    """
    generator = np.random.default_rng(seed)
    rows = np.sort(generator.choice(graph.n_rows, min(config.sample_rows, graph.n_rows), replace=False))
    embedding = torch.from_numpy(embed(rows))
    parts = component_labels(graph)[rows] if in_parts else None
    scale = torch.from_numpy(diffusion_scale(ritz_values, config.diffusion_time, n_clusters))

    def fitted(normalize_rows: bool) -> tuple[Assigner, dict[str, Any], int]:
        """Return the assigner, its facts and the rows of its smallest cluster."""
        points = clustering_coordinates(embedding, scale, normalize_rows)
        fit = fit_centroids(points.numpy(), n_clusters, config, seed, parts)
        centroids = torch.from_numpy(fit.centroids)
        squared, nearest = squared_distances(points, centroids).min(1)
        variance = float(squared.double().mean()) / points.shape[1]
        facts = {
            "n_clusters": n_clusters,
            "n_components": len(scale),
            "normalize_rows": normalize_rows,
            "variance": variance,
            "restarts": {"runs": fit.n_runs, "lowest": fit.n_lowest, "rand_index": fit.rand_index},
            "parts": fit.n_parts,
            "strayed": float(np.mean((fit.labels != nearest.numpy()) & ~fit.fragments)) if fit.n_parts > 1 else 0.0,
        }
        smallest = int(np.bincount(nearest.numpy(), minlength=n_clusters).min())
        return Assigner(scale, centroids, normalize_rows, variance).eval(), facts, smallest

    if config.normalize_rows != "auto":
        return fitted(config.normalize_rows)[:2]
    tried = [fitted(True), fitted(False)]
    anchors = np.sort(generator.choice(rows, min(CUT_ROWS, len(rows)), replace=False))
    neighbors, affinities = graph.gather(anchors)
    ends, edges = np.unique(np.column_stack([anchors, neighbors]), return_inverse=True)
    embedding, edges = torch.from_numpy(embed(ends)), edges.reshape(len(anchors), -1)
    cuts = []
    for assigner, _, _ in tried:
        clusters = assigner(embedding)[0].numpy()[edges]
        heads = np.repeat(clusters[:, 0], neighbors.shape[1])
        cuts.append(normalized_cut(heads, clusters[:, 1:].ravel(), affinities.ravel(), n_clusters))
    whole = tried[1][2] >= FRAGMENT * len(rows) / n_clusters
    assigner, facts, _ = tried[int(whole and cuts[1] < FEWER_CUTS * cuts[0])]
    return assigner, facts | {"normalized_cuts": cuts}


def embedded(network: nn.Module, vectors: Vectors, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the network's outputs (n, P) at some rows (n,), ascending."""
    starts = range(0, len(rows), BLOCK_ROWS)
    return np.concatenate([forward(network, vectors.gather(rows[i : i + BLOCK_ROWS])) for i in starts])


def load_assigner(clusters: Artifact) -> Assigner:
    """Return the assigner of a finished ``clusters`` artifact on the CPU."""
    return restored(clusters, "clusters.pt", Assigner.from_state)


def _run(work: Work) -> Manifest:
    assert work.graph is not None, "eigenfunctions are those of a graph"
    vectors, model = work.artifacts["pack"], work.artifacts["calibrate"]
    return cluster(vectors, model, work.graph, work.output, work.settings["cluster"], work.settings["seed"])


def _cost(bill: Bill) -> None:
    sample_rows = bill.settings["cluster"].sample_rows
    seen, timed = min(bill.n_rows, sample_rows), min(bill.rates.sample_rows, sample_rows)
    us = bill.alone_s * 1e6 / timed
    bill.add("driver", seen * us / 1e6, f"{seen:,.0f} rows x {us:.3g} us")
    _, graph = bill.recipe.learns_from["train"]
    assert graph is not None, "eigenfunctions are those of a graph"
    bill.driver({"components": bill.us("components")})  # as far as the graph has several
    bill.read = bill.kept_by(graph)
    bill.driver_bytes += 4 * seen * (bill.recipe.dim + 2 * bill.settings["train"].n_functions)
    bill.driver_bytes += DRIVER_ROW_BYTES * bill.n_rows


def _pieces(work: Work) -> dict[str, Piece]:
    assert work.graph is not None, "eigenfunctions are those of a graph"
    return {"components": fact_piece(component_labels, work.graph)}


def _facts(manifests: Manifests) -> dict[str, Any]:
    made = manifests["cluster"]
    told = ("n_clusters", "normalize_rows", "normalized_cuts", "restarts", "parts", "strayed")
    return {key: made.properties[key] for key in told if key in made.properties} | {"asked": made.config["n_clusters"]}


def _notes(metrics: dict[str, Any]) -> list[str]:
    facts = metrics["cluster"]
    asked, found, strayed = facts["asked"], metrics["calibrate"]["suggested_n_clusters"], facts["strayed"]
    notes = []
    if asked != "auto" and found is not None and asked != found:
        notes.append(f"The largest gap of the spectrum suggests {found} clusters; the config asks for {asked}.")
    restarts = facts["restarts"]
    if restarts["runs"] > restarts["lowest"] == 1 and restarts["rand_index"] < AGREED:
        notes.append(
            f"The clusters depend on where k-means begins: {agreement_in_words(restarts)}. "
            "Ask for another cluster.n_clusters, or raise cluster.restarts until several runs reach the best."
        )
    if facts["parts"] > facts["n_clusters"]:
        notes.append(
            f"The graph has {facts['parts']} parts that no edge joins, more than the {facts['n_clusters']} clusters; "
            "whole parts were put together. Raise cluster.n_clusters to have each in a cluster of its own."
        )
    if strayed > STRAYED:
        notes.append(
            f"{strayed:.1%} of the rows are in a cluster of a part of the graph that no edge joins to theirs, for the "
            "network does not tell the parts apart. Raise train.max_steps or network.hidden."
        )
    return notes


def agreement_in_words(restarts: dict[str, Any]) -> str:
    """Return how far the runs of k-means agreed, for readers who never heard of inertia."""
    if restarts["runs"] == 1:
        return "k-means ran once"
    return (
        f"{restarts['lowest']} of {restarts['runs']} runs of k-means reached the best solution; the others agree with "
        f"it by {restarts['rand_index']:.2f}, where 1 means the same clusters"
    )


CLUSTER = Stage(
    name="cluster",
    folder="clusters",
    purpose="Find the clusters' centroids in the embedding of a sample.",
    done="clustered",
    inputs=lambda recipe: ("pack", recipe.embedded_graph, "calibrate"),
    sections=("cluster", "seed"),
    run=_run,
    cost=_cost,
    pieces=_pieces,
    facts=_facts,
    lines=lambda facts: {"clusters": str(facts["n_clusters"]), "k-means": agreement_in_words(facts["restarts"])},
    notes=_notes,
)

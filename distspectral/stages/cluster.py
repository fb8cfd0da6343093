"""Centroids in the calibrated embedding: k-means on a sample once, never again."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from distspectral.clusters import ClusterConfig, KMeansFit, diffusion_scale, fit_centroids
from distspectral.costs.bill import Bill
from distspectral.embedding.forward import BLOCK_ROWS, forward
from distspectral.graph.components import component_labels
from distspectral.graph.store import MappedGraph
from distspectral.models.assigner import Assigner, clustering_coordinates, squared_distances
from distspectral.models.networks import torch_device
from distspectral.stages.calibrate import load_calibrated_network
from distspectral.stages.stage import Manifests, Stage, Work
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.artifact.manifest import Manifest
from distspectral.storage.artifact.output import Output
from distspectral.storage.rows.vectors import MappedVectors, Vectors
from distspectral.training.checkpoint import restored, write_state

AGREED = 0.95
"""Mean adjusted Rand index of restarts below which a report warns."""
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
    network = load_calibrated_network(model).to(torch_device("auto"))
    mapped = MappedGraph(graph, reread=True)
    assigner, found = fit_assigner(
        MappedVectors(vectors),
        network,
        np.asarray(properties["ritz_values"][: properties["n_components"]]),
        properties["suggested_n_clusters"] if config.n_clusters == "auto" else config.n_clusters,
        config,
        seed,
        component_labels(mapped) if graph.manifest().properties["components"] > 1 else None,
    )
    write_state(output.artifact, "clusters.pt", assigner.state())
    facts = {
        "n_clusters": len(assigner.centroids),
        "n_components": len(assigner.scale),
        "normalize_rows": assigner.normalize_rows,
        "variance": assigner.variance,
        **found,
    }
    return output.commit([], facts, {}, files=("clusters.pt",))


def fit_assigner(
    vectors: Vectors,
    network: nn.Module,
    ritz_values: np.ndarray[Any, np.dtype[np.float64]],
    n_clusters: int,
    config: ClusterConfig,
    seed: int,
    components: NDArray[np.int64] | None,
) -> tuple[Assigner, dict[str, Any]]:
    """Return the assigner fitted to a seeded sample of the rows, and what :func:`_found` tells of the fit.

    Args:
        vectors: all N rows.
        network: calibrated, from rows to P components.
        ritz_values: (P,) of those components.
        n_clusters: C.
        config: coordinates and k-means.
        seed: of the sample and of k-means.
        components: (N,) the component of the graph that each row is in; None where there is one.
    """
    generator = np.random.default_rng(seed)
    n_sample = min(config.sample_rows, vectors.n_rows)
    rows = np.sort(generator.choice(vectors.n_rows, n_sample, replace=False)).astype(np.int64)
    parts = [forward(network, vectors.gather(rows[i : i + BLOCK_ROWS])) for i in range(0, n_sample, BLOCK_ROWS)]
    scale = torch.from_numpy(diffusion_scale(ritz_values, config.diffusion_time, n_clusters))
    points = clustering_coordinates(torch.from_numpy(np.concatenate(parts)), scale, config.normalize_rows).numpy()
    fit = fit_centroids(points, n_clusters, config, seed, None if components is None else components[rows])
    centroids = torch.from_numpy(fit.centroids)
    squared, nearest = squared_distances(torch.from_numpy(points), centroids).min(1)
    variance = float(squared.double().mean()) / points.shape[1]
    return Assigner(scale, centroids, config.normalize_rows, variance).eval(), _found(fit, nearest.numpy())


def _found(fit: KMeansFit, nearest: NDArray[np.int64]) -> dict[str, Any]:
    """Return how far runs of k-means agreed, the parts of the graph kept apart and the share of rows that strayed.

    A row strays if the centroid nearest to it, which it is given, is not that of its own part. Coordinates tell parts
    apart as well as the network has learned to.
    """
    strayed = float(np.mean(fit.labels != nearest)) if fit.n_parts > 1 else 0.0
    runs = {"runs": fit.n_runs, "lowest": fit.n_lowest, "rand_index": fit.rand_index}
    return {"restarts": runs, "parts": fit.n_parts, "strayed": strayed}


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
    bill.driver_bytes += 4 * seen * (bill.recipe.dim + 2 * bill.settings["train"].n_functions)


def _facts(manifests: Manifests) -> dict[str, Any]:
    made = manifests["cluster"]
    told = {key: made.properties[key] for key in ("n_clusters", "restarts", "parts", "strayed")}
    return told | {"asked": made.config["n_clusters"]}


def _notes(metrics: dict[str, Any]) -> list[str]:
    facts = metrics["cluster"]
    asked, found, strayed = facts["asked"], metrics["calibrate"]["suggested_n_clusters"], facts["strayed"]
    notes = []
    if asked != "auto" and found is not None and asked != found:
        notes.append(f"The largest gap of the spectrum suggests {found} clusters; the config asks for {asked}.")
    if facts["restarts"]["rand_index"] < AGREED:
        notes.append(
            f"The clusters depend on where k-means begins: {agreement_in_words(facts['restarts'])}. "
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
    facts=_facts,
    lines=lambda facts: {"clusters": str(facts["n_clusters"]), "k-means": agreement_in_words(facts["restarts"])},
    notes=_notes,
)

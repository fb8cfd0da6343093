"""Centroids in the calibrated embedding: k-means on a sample once, never again."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from distspectral.clusters import ClusterConfig, diffusion_scale, fit_centroids
from distspectral.costs.bill import Bill
from distspectral.embedding.forward import BLOCK_ROWS, forward
from distspectral.models.assigner import Assigner, clustering_coordinates, squared_distances
from distspectral.models.networks import torch_device
from distspectral.stages.calibrate import load_calibrated_network
from distspectral.stages.stage import Manifests, Stage, Work
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.artifact.manifest import Manifest
from distspectral.storage.artifact.output import Output
from distspectral.storage.rows.vectors import MappedVectors, Vectors
from distspectral.training.checkpoint import restored, write_state


def cluster(vectors: Artifact, model: Artifact, output: Output, config: ClusterConfig, seed: int) -> Manifest:
    """Write the artifact ``clusters``: how coordinates are scaled, and the centroids.

    Args:
        vectors: finished ``vectors`` artifact.
        model: finished ``model`` artifact.
        output: where the artifact ``clusters`` goes.
        config: number of clusters, coordinates, k-means.
        seed: of the sample and of k-means.

    Raises:
        TooManyClustersError: more clusters than rows.
    """
    output.begin()
    properties = model.manifest().properties
    network = load_calibrated_network(model).to(torch_device("auto"))
    assigner = fit_assigner(
        MappedVectors(vectors),
        network,
        np.asarray(properties["ritz_values"][: properties["n_components"]]),
        properties["suggested_n_clusters"] if config.n_clusters == "auto" else config.n_clusters,
        config,
        seed,
    )
    write_state(output.artifact, "clusters.pt", assigner.state())
    facts = {
        "n_clusters": len(assigner.centroids),
        "n_components": len(assigner.scale),
        "normalize_rows": assigner.normalize_rows,
        "variance": assigner.variance,
    }
    return output.commit([], facts, {}, files=("clusters.pt",))


def fit_assigner(
    vectors: Vectors,
    network: nn.Module,
    ritz_values: np.ndarray[Any, np.dtype[np.float64]],
    n_clusters: int,
    config: ClusterConfig,
    seed: int,
) -> Assigner:
    """Return the assigner fitted to a seeded sample of the rows.

    Args:
        vectors: all N rows.
        network: calibrated, from rows to P components.
        ritz_values: (P,) of those components.
        n_clusters: C.
        config: coordinates and k-means.
        seed: of the sample and of k-means.
    """
    generator = np.random.default_rng(seed)
    n_sample = min(config.sample_rows, vectors.n_rows)
    rows = np.sort(generator.choice(vectors.n_rows, n_sample, replace=False)).astype(np.int64)
    parts = [forward(network, vectors.gather(rows[i : i + BLOCK_ROWS])) for i in range(0, n_sample, BLOCK_ROWS)]
    scale = torch.from_numpy(diffusion_scale(ritz_values, config.diffusion_time, n_clusters))
    points = clustering_coordinates(torch.from_numpy(np.concatenate(parts)), scale, config.normalize_rows).numpy()
    centroids = fit_centroids(points, n_clusters, config, seed)
    squared = squared_distances(torch.from_numpy(points), torch.from_numpy(centroids)).amin(1)
    variance = float(squared.double().mean()) / points.shape[1]
    return Assigner(scale, torch.from_numpy(centroids), config.normalize_rows, variance).eval()


def load_assigner(clusters: Artifact) -> Assigner:
    """Return the assigner of a finished ``clusters`` artifact on the CPU."""
    return restored(clusters, "clusters.pt", Assigner.from_state)


def _run(work: Work) -> Manifest:
    vectors, model = work.artifacts["pack"], work.artifacts["calibrate"]
    return cluster(vectors, model, work.output, work.settings["cluster"], work.settings["seed"])


def _cost(bill: Bill) -> None:
    sample_rows = bill.settings["cluster"].sample_rows
    seen, timed = min(bill.n_rows, sample_rows), min(bill.rates.sample_rows, sample_rows)
    us = bill.alone_s * 1e6 / timed
    bill.add("driver", seen * us / 1e6, f"{seen:,.0f} rows x {us:.3g} us")
    bill.driver_bytes += 4 * seen * (bill.recipe.dim + 2 * bill.settings["train"].n_functions)


def _facts(manifests: Manifests) -> dict[str, Any]:
    made = manifests["cluster"]
    return {"n_clusters": made.properties["n_clusters"], "asked": made.config["n_clusters"]}


def _notes(metrics: dict[str, Any]) -> list[str]:
    asked, found = metrics["cluster"]["asked"], metrics["calibrate"]["suggested_n_clusters"]
    if asked == "auto" or found is None or asked == found:
        return []
    return [f"The largest gap of the spectrum suggests {found} clusters; the config asks for {asked}."]


CLUSTER = Stage(
    name="cluster",
    folder="clusters",
    purpose="Find the clusters' centroids in the embedding of a sample.",
    done="clustered",
    inputs=lambda recipe: ("pack", "calibrate"),
    sections=("cluster", "seed"),
    run=_run,
    cost=_cost,
    facts=_facts,
    lines=lambda facts: {"clusters": str(facts["n_clusters"])},
    notes=_notes,
)

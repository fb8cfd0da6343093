"""How close a run came to the exact eigenvectors of the graph it built, and what those would have given.

The whole graph is held as one sparse matrix, about 24 bytes an edge, so this is for up to some million rows.
Shape letters: N rows, P components kept.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pyarrow.dataset as ds
import torch
from numpy.typing import NDArray
from sklearn.metrics.cluster import contingency_matrix

from distspectral.calibration.edge_sums import edge_sums
from distspectral.clustering.config import ClusterConfig
from distspectral.clustering.fit import fit_assigner
from distspectral.embedding.columns import require_column
from distspectral.errors import ConfigError
from distspectral.graph.components import component_labels
from distspectral.graph.spectrum import exact_spectrum
from distspectral.graph.store import Graph, MappedGraph
from distspectral.recipes import SpectralRecipe
from distspectral.spectral.diagnostics import label_agreement, sin2_principal_angles
from distspectral.stages.finished_run import FinishedRun
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.rows.vectors import ArrayVectors, MappedVectors


def compare_with_exact(root: Artifact, n_functions: int | None = None) -> dict[str, Any]:
    """Return a finished run's subspace error, what its certificate says of it, Ritz sum and label agreement.

    Args:
        root: the run's directory.
        n_functions: lowest functions compared, the constant one included; default all that were kept.

    Raises:
        MissingArtifactError: the run is not finished.
        ConfigError: the run used the unnormalised Laplacian, or keeps fewer functions than asked for.
    """
    run = FinishedRun(root)
    run.require_kind(SpectralRecipe.kind, "spectrum")
    model, clusters, output = (run.artifact(name) for name in ("calibrate", "cluster", "embed"))
    properties = model.manifest().properties
    if properties["laplacian"] != "random_walk":
        raise ConfigError(f"{root.uri}: made with spectral.laplacian = unnormalized; this compares random_walk runs")
    n_kept = properties["n_components"]
    n_compared = n_functions or n_kept
    if n_compared > n_kept:
        raise ConfigError(f"--functions: is {n_compared}, but {root.uri} keeps {n_kept} functions; ask for fewer")
    learned = _embedding(output, n_kept)
    began = time.perf_counter()
    mapped = MappedGraph(run.graph()[1])
    values, vectors, degree = exact_spectrum(mapped, n_kept)
    seconds = time.perf_counter() - began
    sin2 = sin2_principal_angles(
        torch.from_numpy(learned[:, :n_compared]), torch.from_numpy(vectors[:, :n_compared]), torch.from_numpy(degree)
    )
    result: dict[str, Any] = {
        "n_rows": len(learned),
        "n_functions": n_compared,
        "mean_sin2": float(sin2.mean()),
        "max_sin2": float(sin2.max()),
        **_claim(model.manifest().metrics["certificate"], n_compared == n_kept),
        "ritz_sum": _energy(learned[:, :n_compared], mapped),
        "exact_sum": float(values[:n_compared].sum()),
        "exact_seconds": seconds,
    }
    labels = MappedVectors(run.artifact("pack")).labels()
    if labels is not None:
        made = clusters.manifest()
        config = ClusterConfig.model_validate({key: value for key, value in made.config.items() if key != "seed"})
        n_clusters, in_parts = made.properties["n_clusters"], made.properties["parts"] > 1
        exact = exact_clusters(vectors, values, mapped, n_clusters, config, made.config["seed"], in_parts)
        result["agreement"] = output.manifest().metrics["agreement"]
        known = np.asarray(labels.is_valid())
        result["exact_agreement"] = label_agreement(contingency_matrix(np.asarray(labels.drop_null()), exact[known]))
    return result


def _energy(functions: NDArray[np.float32], graph: Graph) -> float:
    """Return the sum of the Rayleigh quotients of functions (N, P) that are orthonormal."""
    sums = edge_sums(ArrayVectors(functions), graph, 0, len(functions), "random_walk")
    return float(sums.energy.trace()) / sums.affinity


def _claim(certificate: dict[str, Any], of_all: bool) -> dict[str, Any]:
    """Return what the run's certificate says of the mean, which is a bound, where all kept functions are compared."""
    claimed = {"claimed_mean_sin2": certificate["mean_sin2"], "claimed_near_mean_sin2": certificate["near_mean_sin2"]}
    return (claimed if of_all else {}) | {name: certificate[name] for name in ("verdict", "words", "passes")}


def exact_clusters(
    vectors: NDArray[np.floating[Any]],
    values: NDArray[np.float64],
    graph: Graph,
    n_clusters: int,
    config: ClusterConfig,
    seed: int,
    in_parts: bool,
) -> NDArray[np.int64]:
    """Return the clusters (N,) that a run finds in exact eigenvectors.

    Args:
        vectors: (N, P).
        values: (P,) their eigenvalues.
        graph: that they belong to.
        n_clusters: C.
        config: section ``cluster``.
        seed: of k-means.
        in_parts: whether clusters keep to components of the graph.
    """
    functions = vectors.astype(np.float32)
    embed, components = functions.__getitem__, component_labels(graph).__getitem__ if in_parts else None
    assigner, _ = fit_assigner(embed, graph, values, n_clusters, config, seed, components=components)
    clusters: NDArray[np.int64] = assigner(torch.from_numpy(functions))[0].numpy()
    return clusters


def _embedding(output: Artifact, width: int) -> NDArray[np.float32]:
    """Return the embedding (N, P) of all rows of a finished ``output`` artifact."""
    manifest = output.manifest()
    require_column(manifest, "embedding", output.uri)
    paths = [output.file_path(shard.name) for shard in manifest.shards]
    table = ds.dataset(paths, filesystem=output.filesystem).to_table(columns=["embedding"])
    flat: NDArray[np.float32] = (
        table["embedding"].combine_chunks().flatten().to_numpy(zero_copy_only=False, writable=True)
    )
    return flat.reshape(-1, width)

"""The neighbour search beside its peers: recall, components, core-seconds and peak memory, each in its own process.

Recall is the share of found neighbours that are as near as the true k-th, on sampled rows searched exactly.
Shape letters: N rows, Q sampled queries, D features, K neighbours.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from distspectral.bench.apart import measure_apart
from distspectral.errors import ConfigError
from distspectral.graph.config import AffinityConfig
from distspectral.graph.search.exact import ExactSolver, rows_per_block, squared_distances
from distspectral.graph.search.lists import top_k
from distspectral.graph.spectrum import exact_spectrum
from distspectral.graph.store import ArrayGraph
from distspectral.graph.weights import all_scales, block_affinities, row_scales
from distspectral.spectral.diagnostics import sin2_principal_angles
from distspectral.stages.pack import PackConfig, pack
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.artifact.output import Output
from distspectral.storage.rows.vectors import MappedVectors, Vectors
from distspectral.storage.source.dataset import Source

METHODS = ("distspectral", "pynndescent", "faiss_hnsw", "faiss_ivf_flat", "exact")
VECTORS, TRUTH = "vectors", "truth.npz"
N_QUERIES = 2000
SEED = 20180213
"""Of the sampled rows; not the search's own seed, so that it is not asked about its own sample."""


def compare_searches(
    source: Source,
    n_neighbors: int,
    methods: Sequence[str] = METHODS,
    threads: int = 1,
    dtype: Literal["float32", "float16"] = "float32",
    n_functions: int = 0,
) -> dict[str, Any]:
    """Return what each method found and what it cost.

    The rows are packed into a temporary folder first, as a run does. Ours works from there; the others are given all
    rows in memory.

    Args:
        source: the rows.
        n_neighbors: K.
        methods: of :data:`METHODS`.
        threads: each process may use.
        dtype: in which rows are stored.
        n_functions: if any, ``mean_sin2`` of the principal angles between that many lowest eigenvectors of each
            method's self-tuned graph and of the exact one's is added; for as many rows as are searched exactly.

    Raises:
        ConfigError: eigenvectors are asked for, but not the exact method.
        DistSpectralError: a method's process failed.
    """
    if n_functions and "exact" not in methods:
        raise ConfigError("--functions: eigenvectors are compared with those of the method `exact`; add it")
    with tempfile.TemporaryDirectory(prefix="distspectral-bench-") as folder:
        packed = Output(Artifact(folder).child(VECTORS), "pack", "bench", {}, {})
        pack(source, packed, PackConfig(dtype=dtype))
        vectors = MappedVectors(packed.artifact)
        queries, limits = exact_limits(vectors, n_neighbors)
        np.savez(Path(folder, TRUTH), queries=queries, limits=limits)
        module = "distspectral.bench.graph_methods"
        measured = [
            measure_apart(f"bench graph: {name}", module, name, folder, str(n_neighbors), threads=threads)
            for name in methods
        ]
        if n_functions:
            _add_sin2(measured, folder, vectors, n_neighbors, n_functions)
        return {"rows": vectors.n_rows, "dim": vectors.dim, "k": n_neighbors, "methods": measured}


def exact_limits(rows: Vectors, n_neighbors: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return sampled rows (Q,) and the squared distance (Q,) of their true k-th neighbour."""
    rng = np.random.default_rng(SEED)
    queries = np.sort(rng.choice(rows.n_rows, min(N_QUERIES, rows.n_rows), replace=False)).astype(np.int64)
    solver = ExactSolver(n_neighbors, rows.mean.astype(np.float32), np.empty(0, np.int64), "auto")
    return queries, solver.among_all(rows, queries)[1][:, -1]


def _add_sin2(
    measured: list[dict[str, Any]], folder: str, vectors: MappedVectors, n_neighbors: int, n_functions: int
) -> None:
    """Add to each method how far the lowest eigenvectors of its graph are from those of the exact graph."""
    spectra = {}
    for method in measured:
        found = np.load(Path(folder, f"{method['name']}.npy"))
        if len(found) == vectors.n_rows:
            spectra[method["name"]] = exact_spectrum(_weighed(found, vectors, n_neighbors), n_functions)
    if "exact" not in spectra:
        raise ConfigError(f"--functions: {vectors.n_rows:,} rows are too many for the exact graph; ask for fewer rows")
    _, reference, degree = (torch.from_numpy(array) for array in spectra["exact"])
    for method in measured:
        if method["name"] in spectra:
            lowest = torch.from_numpy(spectra[method["name"]][1])
            method["mean_sin2"] = float(sin2_principal_angles(lowest, reference, degree).mean())


def _weighed(found: NDArray[np.int64], vectors: MappedVectors, n_neighbors: int) -> ArrayGraph:
    """Return found neighbours, the row itself possibly among them, as a graph with self-tuned affinities."""
    config = AffinityConfig(scale_neighbor=min(AffinityConfig().scale_neighbor, n_neighbors))
    step = rows_per_block(vectors.dim)
    ids = np.empty((vectors.n_rows, n_neighbors), np.int64)
    distances = np.empty(ids.shape, np.float32)
    rows = vectors.gather(np.arange(vectors.n_rows))
    for start in range(0, vectors.n_rows, step):
        part, own = slice(start, start + step), np.arange(start, min(start + step, vectors.n_rows))
        squared = squared_distances(rows[part], rows, np.maximum(found[part], 0).astype(np.int64))
        ids[part], distances[part] = top_k(found[part].astype(np.int64), squared, own, n_neighbors)
    scales = all_scales(row_scales(distances, config), config)
    return ArrayGraph(ids, block_affinities(0, ids, distances, scales, config))

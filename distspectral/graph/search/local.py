"""The neighbours of a cell's rows among themselves: exact, NN-descent or HNSW behind one call.

Whatever proposes candidates, true differences rank them and ids break ties, so a solver decides only which pairs are
seen. An approximate solver checks itself against exact search on a sample and works harder until it is good enough.

Shape letters: B rows of the cell, D features, K neighbours.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import logging
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distspectral.errors import MissingDependencyError
from distspectral.graph.config import GraphConfig, LocalSolver
from distspectral.graph.search import products
from distspectral.graph.search.duplicates import surplus_duplicates
from distspectral.graph.search.exact import (
    MARGIN,
    MAX_CANDIDATES,
    ExactSolver,
    rows_per_task,
    squared_distances,
)
from distspectral.graph.search.faiss_search import Device, import_faiss, select_search, uses_gpu
from distspectral.graph.search.lists import Neighbors, top_k
from distspectral.graph.search.products import nearest_in_set
from distspectral.storage.rows.vectors import Vectors

logger = logging.getLogger(__name__)

CHECK_ROWS = 300
RANK_BYTES = 1 << 26
HALF_RANGE = 1024.0
"""Largest value of rows cast to float16: its square is far from float32's end, its last digit from float16's."""
N_TREES = 4
EFFORTS = (1.0, 1.35, 2.0)
"""Neighbours that NN-descent keeps, and links of HNSW, as multiples of the least."""
HNSW_LINKS = 16


def has_nn_descent() -> bool:
    """Whether pynndescent is installed."""
    return importlib.util.find_spec("pynndescent") is not None


def require(solver: LocalSolver) -> None:
    """Raise :class:`MissingDependencyError` if the solver's package is not installed."""
    if solver == "nn_descent" and not has_nn_descent():
        raise MissingDependencyError(
            "graph.solver is nn_descent: pip install pynndescent, or set it to auto", parameters=["graph.solver"]
        )


@dataclasses.dataclass(frozen=True)
class CellSolver:
    """Finds neighbours inside a cell; picklable.

    Attributes:
        kind: what proposes candidates.
        n_neighbors: K.
        target: recall that an approximate solver must show on its sample.
        seed: of samples and solvers.
        device: for exact search.
    """

    kind: LocalSolver
    n_neighbors: int
    target: float
    seed: int
    device: Device = "auto"

    def __call__(
        self, ids: NDArray[np.int64], rows: NDArray[np.float32]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32], int, int]:
        """Return ids (B, K), squared distances (B, K), hits and tries of the check.

        Args:
            ids: (B,) ascending global row numbers.
            rows: (B, D), no more than K + 1 of them equal.
        """
        width = self.n_neighbors + 1 + MARGIN
        centred = rows - rows.mean(axis=0, dtype=np.float64).astype(np.float32)
        if self.kind == "exact" or len(rows) <= 8 * width:
            return *self._ranked(ids, rows, self._all_pairs(centred, width)), 0, 0
        sample = np.sort(np.random.default_rng([self.seed, len(ids), int(ids[0])]).permutation(len(ids))[:CHECK_ROWS])
        truth = self._ranked(ids, rows, _by_products(self.device, centred[sample], centred, width), sample)[1]
        for effort in EFFORTS:
            propose = _nn_descent if self.kind == "nn_descent" else _hnsw
            neighbors, distances = self._ranked(ids, rows, propose(centred, self.n_neighbors, effort, self.seed))
            hits = int(np.count_nonzero(distances[sample] <= truth[:, -1:]))
            if hits >= self.target * truth.size:
                return neighbors, distances, hits, truth.size
            logger.info("cell of %d rows: recall %.4f with effort %g", len(ids), hits / truth.size, effort)
        exact = self._ranked(ids, rows, self._all_pairs(centred, width))
        return *exact, truth.size, truth.size

    def _all_pairs(self, centred: NDArray[np.float32], width: int) -> NDArray[np.int64]:
        if not uses_gpu(self.device) and len(centred) <= products.MOST_ROWS and width <= products.MOST_NEAREST:
            return nearest_in_set(centred, width - 1)
        return _by_products(self.device, centred, centred, width)

    def _ranked(
        self,
        ids: NDArray[np.int64],
        rows: NDArray[np.float32],
        candidates: NDArray[np.int64],
        queries: NDArray[np.int64] | None = None,
    ) -> Neighbors:
        """Return the best K of candidates (positions in the cell, negative for none) by true differences."""
        neighbors = np.empty((len(candidates), self.n_neighbors), np.int64)
        distances = np.empty((len(candidates), self.n_neighbors), np.float32)
        step = max(1, RANK_BYTES // (64 * max(candidates.shape[1], 1)))
        for start in range(0, len(candidates), step):
            part = slice(start, min(start + step, len(candidates)))
            positions = np.maximum(candidates[part], 0)
            own = np.arange(part.start, part.stop) if queries is None else queries[part]
            found = squared_distances(rows[own], rows, positions)
            named = np.where(candidates[part] < 0, -1, ids[positions])
            neighbors[part], distances[part] = top_k(named, found, ids[own], self.n_neighbors)
        return neighbors, distances


class _Subset:
    """Some rows of vectors, renumbered; nothing is copied until it is read."""

    def __init__(self, vectors: Vectors, ids: NDArray[np.int64]) -> None:
        self._vectors, self._ids = vectors, ids
        self.n_rows, self.dim, self.mean, self.scale = len(ids), vectors.dim, vectors.mean, vectors.scale

    def gather(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        return self._vectors.gather(self._ids[rows])

    def block(self, start: int, stop: int) -> NDArray[np.float32]:
        return self._vectors.gather(self._ids[start:stop])


def solve_streaming(vectors: Vectors, ids: NDArray[np.int64], config: GraphConfig) -> Neighbors:
    """Return the exact neighbours of a cell too large for a task's memory, block against block.

    Cells come to this only where rows cannot be told apart by centroids, such as a tight cluster within noise.
    """
    members = _Subset(vectors, ids)
    surplus, _ = surplus_duplicates(members, config.n_neighbors + 1)
    solver = ExactSolver(config.n_neighbors, vectors.mean.astype(np.float32), surplus, config.device)
    step = rows_per_task(len(ids), vectors.dim)
    parts = [solver(members, start, min(start + step, len(ids))) for start in range(0, len(ids), step)]
    neighbors, distances = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return ids[neighbors], distances


def of_equal(
    own: NDArray[np.int64],
    first: NDArray[np.int64],
    neighbors: NDArray[np.int64],
    squared_distances: NDArray[np.float32],
) -> Neighbors:
    """Return the neighbours of rows that have more than K equals, from those of the first equal row.

    Args:
        own: (S,) rows.
        first: (S,) first row equal to each.
        neighbors: (S, K) of the first row.
        squared_distances: (S, K).
    """
    candidates = np.hstack([first[:, None], np.where(np.isinf(squared_distances), -1, neighbors)])
    distances = np.pad(squared_distances, ((0, 0), (1, 0)))
    return top_k(candidates, distances, own, neighbors.shape[1])


def _by_products(
    device: Device, queries: NDArray[np.float32], rows: NDArray[np.float32], width: int
) -> NDArray[np.int64]:
    """Return candidates (B, C) of FAISS; a GPU takes halves, which keep .997 of 15 neighbours, and more candidates."""
    search, width = select_search(device), min(width, len(rows), MAX_CANDIDATES)
    found: NDArray[np.int64]
    if uses_gpu(device):
        scale = np.float32(HALF_RANGE / (float(np.abs(rows).max(initial=0)) or 1.0))  # no overflow, no denormals
        width = min(2 * width, len(rows), MAX_CANDIDATES)
        found = search((queries * scale).astype(np.float16), (rows * scale).astype(np.float16), width)[1]
    else:
        found = search(queries, rows, width)[1]
    return found


def _nn_descent(rows: NDArray[np.float32], n_neighbors: int, effort: float, seed: int) -> NDArray[np.int64]:
    """Return candidates (B, C) of NN-descent; one thread, for several would race and the graph must not change."""
    from numba.core.errors import NumbaWarning
    from pynndescent import NNDescent

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*Cannot cache compiled function", NumbaWarning)  # it compiles once more
        # the caller checks what was found, and searches again or exactly where it is too little
        warnings.filterwarnings("ignore", "Failed to correctly find n_neighbors for some samples", UserWarning)
        index = NNDescent(
            rows,
            n_neighbors=int(np.ceil(effort * (n_neighbors + 1))),
            n_trees=N_TREES,
            random_state=seed,
            n_jobs=1,
        )
    candidates: NDArray[np.int64] = np.asarray(index.neighbor_graph[0], np.int64)
    return candidates


def _hnsw(rows: NDArray[np.float32], n_neighbors: int, effort: float, seed: int) -> NDArray[np.int64]:
    del seed  # FAISS seeds the levels itself
    faiss: Any = import_faiss()
    index = faiss.IndexHNSWFlat(rows.shape[1], int(effort * HNSW_LINKS))
    index.hnsw.efConstruction = int(effort * 60)
    index.hnsw.efSearch = int(effort * 2 * (n_neighbors + 1 + MARGIN))
    n_threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)  # links depend on the order in which threads add rows
    try:
        index.add(rows)
    finally:
        faiss.omp_set_num_threads(n_threads)
    candidates: NDArray[np.int64] = index.search(rows, n_neighbors + 1 + MARGIN)[1]
    return candidates

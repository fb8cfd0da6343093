"""The neighbours of a cell's rows among themselves: exact, NN-descent or HNSW behind one call.

Whatever proposes candidates, true differences rank them and ids break ties, so a solver decides only which pairs are
seen. An approximate solver checks itself against exact search on a sample and works harder until it is good enough,
and so do the halves of a GPU. Rows that still lack neighbours which the cell has are searched again.

Shape letters: B rows of the cell, D features, K neighbours.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import logging
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distspectral.errors import MissingDependencyError, SearchFailedError
from distspectral.graph.config import GraphConfig, LocalSolver
from distspectral.graph.search.duplicates import surplus_duplicates
from distspectral.graph.search.exact import (
    MARGIN,
    MAX_CANDIDATES,
    ExactSolver,
    nearest_by_products,
    rows_per_task,
    squared_distances,
)
from distspectral.graph.search.faiss_search import Device, gpu_search, import_faiss, select_search, uses_gpu
from distspectral.graph.search.halves import CellOnGpu
from distspectral.graph.search.lists import Neighbors, top_k
from distspectral.storage.rows.vectors import Vectors

logger = logging.getLogger(__name__)

Solution = tuple[NDArray[np.int64], NDArray[np.float32], int, int]
"""Neighbours' ids (B, K), squared distances (B, K), hits and tries of the solver's check."""

CHECK_ROWS = 300
RANK_BYTES = 1 << 26
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
            "graph.solver is nn_descent, and pynndescent is not installed: pip install '.[cpu]', or set it to auto",
            parameters=["graph.solver"],
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

    @property
    def is_on_gpu(self) -> bool:
        """Whether a GPU does the work, so that the CPU may read the next cell meanwhile."""
        return self.kind == "exact" and uses_gpu(self.device)

    def __call__(self, ids: NDArray[np.int64], rows: NDArray[np.float32]) -> Solution:
        """Return the neighbours' ids (B, K), squared distances (B, K), hits and tries of the check.

        A GPU's distances may differ from a CPU's in the last digits; see :mod:`distspectral.graph.search.ranking`.

        Args:
            ids: (B,) ascending global row numbers.
            rows: (B, D), no more than K + 1 of them equal.

        Raises:
            SearchFailedError: rows find fewer than K neighbours although the cell has more.
        """
        return self.begin(ids, rows)()

    def begin(self, ids: NDArray[np.int64], rows: NDArray[np.float32]) -> Callable[[], Solution]:
        """Return what solves the cell, after all that needs no turn on the device: it may be done in another thread."""
        if self.is_on_gpu:
            return functools.partial(self._on_gpu, ids, self._begin_on_gpu(ids, rows))
        return functools.partial(self._on_cpu, ids, rows)

    def _on_cpu(self, ids: NDArray[np.int64], rows: NDArray[np.float32]) -> Solution:
        neighbors, distances, hits, tries = self._found(ids, rows)
        short = np.flatnonzero(np.isinf(distances[:, -1]))
        if len(short) and len(ids) > self.n_neighbors:
            neighbors[short], distances[short] = self._by_products(ids, rows, short)
        return self._checked(neighbors, distances, hits, tries)

    def _on_gpu(self, ids: NDArray[np.int64], cell: CellOnGpu) -> Solution:
        gpu = gpu_search(self.device)
        assert gpu is not None, "there was one when the cell was begun"
        positions, distances, hits, tries = cell.nearest(gpu)
        return self._checked(ids[positions], distances, hits, tries)

    def _begin_on_gpu(self, ids: NDArray[np.int64], rows: NDArray[np.float32]) -> CellOnGpu:
        return CellOnGpu(rows, self.n_neighbors, self._sample(ids))

    def _checked(self, neighbors: NDArray[np.int64], distances: NDArray[np.float32], hits: int, tries: int) -> Solution:
        n_short = int(np.count_nonzero(np.isinf(distances[:, -1])))
        if n_short and len(neighbors) > self.n_neighbors:
            raise SearchFailedError(
                f"{n_short:,} of {len(neighbors):,} rows found fewer than {self.n_neighbors} neighbours: distances are "
                "beyond float32, or the device is broken"
            )
        return neighbors, distances, hits, tries

    def _found(self, ids: NDArray[np.int64], rows: NDArray[np.float32]) -> Solution:
        if self.kind == "exact" or len(rows) <= 8 * self._width:
            return self._exactly(ids, rows)
        centred, sample = _centred(rows), self._sample(ids)
        truth = self._by_products(ids, rows, sample)[1]
        for effort in EFFORTS:
            propose = _nn_descent if self.kind == "nn_descent" else _hnsw
            neighbors, distances = self._ranked(ids, rows, propose(centred, self.n_neighbors, effort, self.seed))
            hits = int(np.count_nonzero(distances[sample] <= truth[:, -1:]))
            if hits >= self.target * truth.size:
                return neighbors, distances, hits, truth.size
            logger.info("cell of %d rows: recall %.4f with effort %g", len(ids), hits / truth.size, effort)
        neighbors, distances, _, _ = self._exactly(ids, rows)
        return neighbors, distances, truth.size, truth.size

    def _exactly(self, ids: NDArray[np.int64], rows: NDArray[np.float32]) -> Solution:
        if uses_gpu(self.device):
            return self._on_gpu(ids, self._begin_on_gpu(ids, rows))
        return *nearest_by_products(rows, ids, self.n_neighbors, self._width)[:2], 0, 0

    @property
    def _width(self) -> int:
        """Candidates that products propose for K neighbours and the row itself."""
        return self.n_neighbors + 1 + MARGIN

    def _sample(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the positions of the rows that check what was found."""
        rng = np.random.default_rng([self.seed, len(ids), int(ids[0])])
        return np.sort(rng.permutation(len(ids))[:CHECK_ROWS])

    def _by_products(self, ids: NDArray[np.int64], rows: NDArray[np.float32], queries: NDArray[np.int64]) -> Neighbors:
        """Return the neighbours of some rows from candidates of FAISS in float32."""
        width, centred = min(self._width, len(rows), MAX_CANDIDATES), _centred(rows)
        return self._ranked(ids, rows, select_search(self.device)(centred[queries], centred, width)[1], queries)

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


def _centred(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the rows around their mean: products round by the size of their terms."""
    centred: NDArray[np.float32] = rows - rows.mean(axis=0, dtype=np.float64).astype(np.float32)
    return centred


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

"""The k nearest neighbours of a block of rows among all rows, found exactly and the same however rows are cut.

Matrix products find candidates fast but round; so candidates are ranked again by true differences, and a row's
result stands only if the worst candidate is farther than its k-th neighbour by more than the products can be wrong.
Rows that fail (many ties, tight clusters far from the mean) are searched with more candidates, then without products.

Shape letters: N rows, D features, B query rows, C candidates, K neighbours.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from distspectral.errors import ConstantDataError, SearchFailedError
from distspectral.graph.config import GraphConfig
from distspectral.graph.distances import as_queries
from distspectral.graph.search.duplicates import surplus_duplicates
from distspectral.graph.search.faiss_search import Device, Search, gpu_search, import_faiss
from distspectral.graph.search.lists import Neighbors, nearest_of_parts, top_k
from distspectral.graph.search.products import Base, Candidates
from distspectral.storage.rows.vectors import Vectors

BLOCK_BYTES = 1 << 26
"""Size of one block of vectors in memory; a search holds about five of them."""
CPU_BLOCK_ROWS = 1 << 14
"""Rows of the base that a CPU's products meet at once: their squared distances stay in its cache."""
MIN_TASK_ROWS = 8192
MAX_TASKS = 64
MARGIN = 8
WIDER = 8
MAX_CANDIDATES = 2048
DIRECT_ROWS = 16


def rows_per_block(dim: int) -> int:
    """Return how many float32 vectors of this dimension fill one block."""
    return max(1, BLOCK_BYTES // (4 * dim))


def rows_per_task(n_rows: int, dim: int) -> int:
    """Return the query rows of one task: at most a block, else enough to be worth a pass over the base."""
    return min(rows_per_block(dim), max(MIN_TASK_ROWS, -(-n_rows // MAX_TASKS)))


@dataclasses.dataclass(frozen=True)
class ExactSolver:
    """Exact search by squared Euclidean distance; the base streams by, block after block.

    Attributes:
        n_neighbors: K.
        mean: (D,) float32, subtracted before products: they cancel less around zero.
        surplus: ascending rows that are in nobody's neighbour list, see :mod:`distspectral.graph.search.duplicates`.
        device: where products are computed.
        base_rows: rows of a base block; by default as many as fill one.
    """

    n_neighbors: int
    mean: NDArray[np.float32]
    surplus: NDArray[np.int64]
    device: Device = "auto"
    base_rows: int | None = None

    def __call__(self, vectors: Vectors, start: int, stop: int) -> Neighbors:
        """Return the neighbours of rows ``start`` to ``stop``; missing ones are the row itself at infinity.

        Raises:
            MissingDependencyError: FAISS is not installed.
            ConfigError: the device cannot do it.
            SearchFailedError: distances are not finite, so that a row has fewer neighbours than there are.
        """
        gpu = gpu_search(self.device)
        queries = np.ascontiguousarray(as_queries(vectors, start, stop))
        own = np.arange(start, stop, dtype=np.int64)
        neighbors = np.empty((len(own), self.n_neighbors), np.int64)
        distances = np.empty((len(own), self.n_neighbors), np.float32)
        pending = np.arange(len(own))
        n_base = vectors.n_rows - len(self.surplus)
        width = self.n_neighbors + 1 + MARGIN
        for n_candidates in (width, min(WIDER * width, MAX_CANDIDATES)):
            asked = vectors, queries[pending], own[pending], min(n_candidates, n_base)
            found = self._on_gpu(gpu, *asked) if gpu else self._on_cpu(*asked)
            neighbors[pending], distances[pending], certain = found
            pending = pending[~certain]
            if not len(pending):
                break
        for first in range(0, len(pending), DIRECT_ROWS):
            part = pending[first : first + DIRECT_ROWS]
            neighbors[part], distances[part] = self._by_differences(vectors, queries[part], own[part])
        short = np.flatnonzero(np.isinf(distances[:, -1]))
        if len(short) and n_base > self.n_neighbors:
            raise SearchFailedError(
                f"{len(short):,} rows, row {own[short[0]]} first, have fewer than {self.n_neighbors} neighbours among "
                f"{vectors.n_rows:,}: squared distances to the others are beyond float32; scale the rows, or leave out "
                "those that are far from all"
            )
        return neighbors, distances

    def among(
        self, start: int, block: NDArray[np.float32], queries: NDArray[np.float32], own: NDArray[np.int64]
    ) -> Neighbors:
        """Return the K nearest rows of one block, which begins at row ``start``, to queries (Q, D) that are ``own``.

        Products propose with a margin, differences rank; unlike a call, this proves nothing.
        """
        width = min(self.n_neighbors + 1 + MARGIN, len(block))
        if not (gpu := gpu_search(self.device)):
            return self._of_pieces(np.arange(start, start + len(block)), block, queries, own, width)[:2]
        positions = gpu(queries - self.mean, block - self.mean, width)[1]
        found = squared_distances(queries, np.ascontiguousarray(block), positions)
        return top_k(positions + start, found, own, self.n_neighbors)

    def among_all(self, vectors: Vectors, own: NDArray[np.int64]) -> Neighbors:
        """Return the K nearest rows of all to a few, ``own`` (Q,), in one pass; see :meth:`among`."""
        queries, step = vectors.gather(own), rows_per_block(vectors.dim)
        parts = (
            self.among(start, np.asarray(vectors.block(start, min(start + step, vectors.n_rows))), queries, own)
            for start in range(0, vectors.n_rows, step)
        )
        return nearest_of_parts(parts, own, self.n_neighbors)

    def _base_blocks(self, vectors: Vectors) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Yield (ids, vectors) of the base, block after block, surplus duplicates left out."""
        rows = self.base_rows or rows_per_block(vectors.dim)
        for start in range(0, vectors.n_rows, rows):
            stop = min(start + rows, vectors.n_rows)
            ids = np.arange(start, stop, dtype=np.int64)
            block = vectors.block(start, stop)
            low, high = np.searchsorted(self.surplus, (start, stop))
            if low < high:
                keep = np.ones(len(ids), bool)
                keep[self.surplus[low:high] - start] = False
                ids, block = ids[keep], block[keep]
            if len(ids):
                yield ids, block

    def _on_cpu(
        self, vectors: Vectors, queries: NDArray[np.float32], own: NDArray[np.int64], n_candidates: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.bool_]]:
        """Return neighbours, squared distances and, per row, whether the result is proven."""
        proven = np.ones(len(own), bool)

        def lists() -> Iterator[Neighbors]:
            for ids, block in self._base_blocks(vectors):
                neighbors, distances, complete = self._of_pieces(ids, block, queries, own, n_candidates)
                np.logical_and(proven, complete, out=proven)
                yield neighbors, distances

        return *nearest_of_parts(lists(), own, self.n_neighbors), proven

    def _of_pieces(
        self,
        ids: NDArray[np.int64],
        block: NDArray[np.float32],
        queries: NDArray[np.float32],
        own: NDArray[np.int64],
        n_candidates: int,
    ) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.bool_]]:
        """Return a block's nearest rows to queries, by pieces of it, and whether they are proven to be."""
        if len(ids) <= CPU_BLOCK_ROWS:
            rows = np.ascontiguousarray(block, np.float32)
            return nearest_by_products(rows, ids, self.n_neighbors, n_candidates, (queries, own))
        proven = np.ones(len(own), bool)

        def lists() -> Iterator[Neighbors]:
            for start in range(0, len(ids), CPU_BLOCK_ROWS):
                piece = slice(start, start + CPU_BLOCK_ROWS)
                found = self._of_pieces(ids[piece], block[piece], queries, own, n_candidates)
                np.logical_and(proven, found[2], out=proven)
                yield found[:2]

        return *nearest_of_parts(lists(), own, self.n_neighbors), proven

    def _on_gpu(
        self,
        search: Search,
        vectors: Vectors,
        queries: NDArray[np.float32],
        own: NDArray[np.int64],
        n_candidates: int,
    ) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.bool_]]:
        """Return neighbours, squared distances and, per row, whether the result is proven."""
        centred = queries - self.mean
        heap = import_faiss().ResultHeap(len(queries), n_candidates)
        n_base = 0
        for ids, block in self._base_blocks(vectors):
            rounded, positions = search(centred, block - self.mean, min(n_candidates, len(ids)))
            heap.add_result(rounded, ids[positions])
            n_base += len(ids)
        heap.finalize()
        neighbors, distances = self._rank(vectors, queries, own, heap.I)
        if n_candidates == n_base:
            return neighbors, distances, np.ones(len(own), bool)
        # |q|^2 + |b|^2 - 2 q.b has an error of about sqrt(D) ulp of (|q| + |b|)^2, and |b| <= |q| + distance
        worst = distances[:, -1]
        reach = 2 * np.linalg.norm(centred, axis=1) + np.sqrt(worst)
        error = (8 + np.sqrt(vectors.dim)) * np.finfo(np.float32).eps * reach**2
        return neighbors, distances, heap.D[:, -1] - error > worst

    def _rank(
        self, vectors: Vectors, queries: NDArray[np.float32], own: NDArray[np.int64], candidates: NDArray[np.int64]
    ) -> Neighbors:
        """Return the best K of (B, C) candidates by the differences themselves."""
        distances = np.empty(candidates.shape, np.float32)
        rows = max(1, 2 * BLOCK_BYTES // (4 * vectors.dim * candidates.shape[1]))
        for start in range(0, len(queries), rows):
            part = slice(start, start + rows)
            unique, position = np.unique(np.maximum(candidates[part], 0), return_inverse=True)
            distances[part] = squared_distances(
                queries[part], vectors.gather(unique), position.reshape(-1, candidates.shape[1])
            )
        return top_k(candidates, distances, own, self.n_neighbors)

    def _by_differences(self, vectors: Vectors, queries: NDArray[np.float32], own: NDArray[np.int64]) -> Neighbors:
        """Return the neighbours by the differences to every row: exact for any data, and slow."""

        def of_block(ids: NDArray[np.int64], block: NDArray[np.float32]) -> Neighbors:
            everyone = np.broadcast_to(np.arange(len(ids)), (len(own), len(ids)))
            found = squared_distances(queries, np.ascontiguousarray(block), everyone)
            best = np.argsort(found, axis=1, kind="stable")[:, : self.n_neighbors + 1]  # + 1: the row itself
            return ids[best], np.take_along_axis(found, best, axis=1)

        return nearest_of_parts(itertools.starmap(of_block, self._base_blocks(vectors)), own, self.n_neighbors)


def exact_solver(vectors: Vectors, config: GraphConfig) -> ExactSolver:
    """Return the solver for these vectors, after one streaming pass that finds their duplicates.

    Raises:
        ConstantDataError: all rows are equal.
    """
    surplus, n_distinct = surplus_duplicates(vectors, config.n_neighbors + 1)
    if n_distinct == 1:
        raise ConstantDataError(
            f"all {vectors.n_rows} rows are equal, so no neighbourhood carries information; "
            "check that these are the right vectors"
        )
    return ExactSolver(config.n_neighbors, vectors.mean.astype(np.float32), surplus, config.device)


def query_blocks(vectors: Vectors, config: GraphConfig) -> list[tuple[int, int]]:
    """Return (start, stop) of the query rows of each task."""
    rows = config.block_rows or rows_per_task(vectors.n_rows, vectors.dim)
    return [(start, min(start + rows, vectors.n_rows)) for start in range(0, vectors.n_rows, rows)]


def nearest_by_products(
    rows: NDArray[np.float32],
    ids: NDArray[np.int64],
    n_neighbors: int,
    n_candidates: int,
    asked: tuple[NDArray[np.float32], NDArray[np.int64]] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.bool_]]:
    """Return the nearest of rows, on the CPU: products propose, differences rank, and what was rounded off is reckoned.

    Queries for which bfloat16 cannot prove that their neighbours are complete are searched in float32.

    Args:
        rows: (B, D), contiguous.
        ids: (B,) of the rows.
        n_neighbors: K.
        n_candidates: how many nearest rows products are asked for, the query itself among them.
        asked: queries (Q, D) and their ids; by default the rows ask for one another.

    Returns:
        neighbors: (Q, K) ids.
        squared_distances: (Q, K).
        complete: (Q,) whether no row that is nearer can have been missed.
    """
    base = Base(rows, n_candidates)
    queries, own = asked or (rows, ids)
    blocks = base.nearest(queries) if asked else base.nearest_others()
    neighbors, distances, complete = _ranked(blocks, rows, ids, queries, own, n_neighbors)
    if base.bfloat16 and not complete.all():
        again = np.flatnonzero(~complete)
        blocks = Base(rows, n_candidates, bfloat16=False).nearest(queries[again])
        found = _ranked(blocks, rows, ids, queries[again], own[again], n_neighbors)
        neighbors[again], distances[again], complete[again] = found
    return neighbors, distances, complete


def _ranked(
    blocks: Iterator[tuple[slice, Candidates]],
    rows: NDArray[np.float32],
    ids: NDArray[np.int64],
    queries: NDArray[np.float32],
    own: NDArray[np.int64],
    n_neighbors: int,
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.bool_]]:
    """Return the best K of candidates by the differences themselves, and whether they are complete."""
    neighbors = np.empty((len(own), n_neighbors), np.int64)
    distances, complete = np.empty(neighbors.shape, np.float32), np.empty(len(own), bool)
    for part, found in blocks:
        squared = pair_distances(queries[part], rows, found.queries, found.positions)
        table = found.filled(ids[found.positions], -1), found.filled(squared, np.inf)
        neighbors[part], distances[part] = top_k(*table, own[part], n_neighbors)
        complete[part] = found.are_complete(distances[part, -1])
    return neighbors, distances, complete


def pair_distances(
    queries: NDArray[np.float32], base: NDArray[np.float32], at: NDArray[np.int64], positions: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Return (M,) squared distances of pairs, queries ``at`` and base rows ``positions``; see below for their bits."""
    faiss = import_faiss()
    queries, distances = np.ascontiguousarray(queries), np.empty(len(at), np.float32)
    pairs = faiss.swig_ptr(queries), faiss.swig_ptr(at), faiss.swig_ptr(base), faiss.swig_ptr(positions)
    faiss.pairwise_indexed_L2sqr(base.shape[1], len(at), *pairs, faiss.swig_ptr(distances))
    return distances


def squared_distances(
    queries: NDArray[np.float32], base: NDArray[np.float32], positions: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Return (B, C) squared distances of query i to base rows ``positions[i]``: of one pair always the same bits."""
    faiss = import_faiss()
    queries = np.ascontiguousarray(queries)
    positions = np.ascontiguousarray(positions, dtype=np.int64)
    distances = np.empty(positions.shape, np.float32)
    faiss.fvec_L2sqr_by_idx(
        faiss.swig_ptr(distances),
        faiss.swig_ptr(queries),
        faiss.swig_ptr(base),
        faiss.swig_ptr(positions),
        queries.shape[1],
        *positions.shape,
    )
    return distances

"""What settings of cells are tried on: sampled rows with their exact neighbours, and a pool of random rows.

Which rows is drawn by number. Tasks read them: the queries first, then all rows once, for the queries' neighbours and
for the pool, then the neighbours' own vectors. Who starts the tasks reads no vectors.

Shape letters: N rows, Q queries, B rows asked for, D features, C cells, K neighbours.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from distspectral.graph.config import GraphConfig, Metric
from distspectral.graph.distances import under_metric
from distspectral.graph.search.cells import POINTS_PER_CENTROID
from distspectral.graph.search.cuts import Run
from distspectral.graph.search.exact import ExactSolver
from distspectral.graph.search.lists import Neighbors, nearest_of_parts
from distspectral.graph.store import NEIGHBORS, SQUARED_DISTANCES
from distspectral.mapping import Mapper, in_order
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.artifact.manifest import Shard
from distspectral.storage.artifact.receipts import write_missing
from distspectral.storage.rows.arrays import Arrays, Piece, piece_offsets, pieces_at, read_pieces, write_pieces
from distspectral.storage.rows.vectors import MappedVectors, Vectors

N_QUERIES = 1000
N_CHECKED = 500
"""Rows that tuning does not see and whose neighbours the finished graph is compared with."""
LEAST_POOLED = 10_000
"""Rows that centroids are fitted to, and rows that cells are counted with, where cells are few."""
SEEN_PER_CELL = 25
MOST_SEEN = 1 << 20
MOST_FITTED = 1 << 22
LEAST_PER_CENTROID = 2
"""Rows that a centroid is fitted to where memory is scarce: fewer would make cells of single rows."""
LEAST_CELL_ROWS = 250
READ_AT_ONCE = 2048
"""Scattered rows that one task reads."""
VECTOR = "vector"
LISTS, POOLS = 0, {"fitted": 1, "seen": 2}
"""The pieces of a sample's file; its receipt says how many rows the pools have."""


@dataclasses.dataclass(frozen=True)
class Searched:
    """The vectors to search, in memory or in an artifact that each task opens for itself; picklable.

    Attributes:
        origin: (N, D) vectors, or a finished ``vectors`` artifact.
        metric: what is near.
    """

    origin: Vectors | Artifact
    metric: Metric

    def open(self) -> Vectors:
        """Return the vectors under the metric."""
        return under_metric(
            MappedVectors(self.origin) if isinstance(self.origin, Artifact) else self.origin, self.metric
        )

    def are_halves(self) -> bool:
        """Whether float16 holds them without loss."""
        origin = self.origin
        return isinstance(origin, Artifact) and self.metric == "l2" and MappedVectors(origin).dtype == np.float16


class Rows(Protocol):
    """Random rows of a dataset, numbered among themselves."""

    @property
    def n_rows(self) -> int:
        """How many."""

    def gather(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return (B, D) rows; their numbers ascend."""


class PooledRows:
    """Random rows as tasks have written them, read when they are asked for; picklable.

    Args:
        artifact: holds the files.
        pieces: of these.
        sizes: rows of each.
        dim: D.
    """

    def __init__(self, artifact: Artifact, pieces: Sequence[Piece], sizes: Sequence[int], dim: int) -> None:
        self._artifact, self._pieces, self._dim = artifact, pieces, dim
        self._offsets = np.cumsum([0, *sizes], dtype=np.int64)
        self.n_rows = int(self._offsets[-1])

    def gather(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return rows whose numbers ascend; each piece that holds any is read once."""
        cuts = np.searchsorted(rows, self._offsets)
        holding = np.flatnonzero(np.diff(cuts)).tolist()
        found = np.empty((len(rows), self._dim), np.float32)
        read = read_pieces(self._artifact, [self._pieces[index] for index in holding])
        for index, piece in zip(holding, read, strict=True):
            here = slice(cuts[index], cuts[index + 1])
            found[here] = piece[VECTOR][rows[here] - self._offsets[index]]
        return found


@dataclasses.dataclass(frozen=True)
class Sample:
    """What settings are tried on; picklable.

    Attributes:
        n_rows: N, of all.
        queries: (Q, D) sampled rows.
        truth: (Q * K, D) their exact neighbours, query by query.
        fitted: rows that centroids are fitted to.
        seen: other rows, that sizes of cells are estimated from: k-means is nearer to its own.
    """

    n_rows: int
    queries: NDArray[np.float32]
    truth: NDArray[np.float32]
    fitted: Rows
    seen: Rows


@dataclasses.dataclass(frozen=True)
class CheckedRows:
    """Rows that check the finished graph.

    Attributes:
        queries: (Q,) row numbers, ascending.
        limits: (Q,) squared distance of each one's true last neighbour.
    """

    queries: NDArray[np.int64]
    limits: NDArray[np.float32]


def sampled(n_rows: int, count: int, seed: int) -> NDArray[np.int64]:
    """Return ``count`` row numbers, ascending, that depend on ``n_rows`` and the seed only."""
    rng = np.random.default_rng([seed, n_rows])
    if count >= n_rows:
        return np.arange(n_rows, dtype=np.int64)
    rows: NDArray[np.int64] = np.sort(rng.choice(n_rows, count, replace=False, shuffle=False))
    return rows


def most_fitted(config: GraphConfig, dim: int) -> int:
    """Return how many rows centroids can be fitted to: half of a task's memory, and what one task does in time."""
    return min(config.task_memory // (8 * dim), MOST_FITTED)


def most_cells(config: GraphConfig, dim: int) -> float:
    """Return how many cells so many rows can tell apart."""
    return most_fitted(config, dim) / LEAST_PER_CENTROID


def n_fitted(config: GraphConfig, dim: int, n_rows: float, n_cells: float) -> int:
    """Return how many rows the centroids of so many cells are fitted to."""
    return int(min(n_rows, max(LEAST_POOLED, POINTS_PER_CENTROID * n_cells), max(most_fitted(config, dim), 1)))


def n_seen(n_rows: float, n_cells: float) -> int:
    """Return how many rows so many cells are counted with: as many per cell whatever the dataset's size."""
    return int(min(n_rows, max(LEAST_POOLED, SEEN_PER_CELL * n_cells), MOST_SEEN))


def gather_sample(
    searched: Searched,
    artifact: Artifact,
    runs: Sequence[tuple[str, Run]],
    done: dict[str, Shard],
    config: GraphConfig,
    mapper: Mapper,
) -> tuple[Sample, CheckedRows]:
    """Return a sample, gathered by tasks.

    Args:
        searched: (N, D).
        artifact: where the pool is written.
        runs: blocks of each task that reads all rows, and its file.
        done: shards that an earlier attempt left finished; the new ones are added.
        config: the section ``graph``.
        mapper: runs the tasks.
    """
    n_rows = runs[-1][1][-1][1]
    queries = sampled(n_rows, N_QUERIES + N_CHECKED, config.seed)
    at = _read(searched, queries, "reading a sample", mapper)
    cells = n_rows / LEAST_CELL_ROWS
    task = functools.partial(
        _look_through,
        searched=searched,
        artifact=artifact,
        config=config,
        own=queries,
        at=at,
        pools={
            "fitted": sampled(n_rows, n_fitted(config, at.shape[1], n_rows, cells), config.seed + 1),
            "seen": sampled(n_rows, n_seen(n_rows, cells), config.seed + 2),
        },
    )
    shards = write_missing(done, mapper, task, runs, "exact neighbours of a sample", on_gpu=True)
    names, places = [shard.name for shard in shards], piece_offsets(shards)
    found = read_pieces(artifact, pieces_at(names, places[:, LISTS : LISTS + 2]))
    lists = ((part[NEIGHBORS], part[SQUARED_DISTANCES]) for part in found)
    ids, distances = nearest_of_parts(lists, queries, config.n_neighbors)
    checked = np.arange(len(queries)) % ((N_QUERIES + N_CHECKED) // N_CHECKED) == 0

    def pooled(pool: str) -> PooledRows:
        pieces = pieces_at(names, places[:, POOLS[pool] : POOLS[pool] + 2])
        return PooledRows(artifact, pieces, [done[piece.name].details[pool] for piece in pieces], at.shape[1])

    truth = _read(searched, ids[~checked].ravel(), "reading a sample's neighbours", mapper)
    sample = Sample(n_rows, at[~checked], truth, pooled("fitted"), pooled("seen"))
    return sample, CheckedRows(queries[checked], distances[checked, -1])


def nearest_of_all(
    searched: Searched,
    rows: NDArray[np.int64],
    runs: Sequence[Run],
    config: GraphConfig,
    mapper: Mapper,
    description: str,
) -> Neighbors:
    """Return the exact neighbours (B, K) of a few rows among all and their squared distances, in one pass of tasks.

    Args:
        searched: (N, D).
        rows: (B,) ascending.
        runs: blocks of each task that reads all rows.
        config: the section ``graph``.
        mapper: runs the tasks.
        description: of the pass.
    """
    at = _read(searched, rows, "reading rows of small cells", mapper)
    task = functools.partial(_nearest, searched=searched, config=config, own=rows, at=at)
    return nearest_of_parts(mapper(task, runs, description, on_gpu=True), rows, config.n_neighbors)


def _read(searched: Searched, rows: NDArray[np.int64], description: str, mapper: Mapper) -> NDArray[np.float32]:
    """Return (B, D) rows in any order, with repeats, read by tasks."""
    unique, position = np.unique(rows, return_inverse=True)
    blocks = np.split(unique, range(READ_AT_ONCE, len(unique), READ_AT_ONCE))
    parts = in_order(mapper, functools.partial(_scattered_rows, searched=searched), blocks, description)
    return np.concatenate(list(parts))[position]


# ---- tasks -------------------------------------------------------------------------------------------------------


def _scattered_rows(rows: NDArray[np.int64], *, searched: Searched) -> NDArray[np.float32]:
    return searched.open().gather(rows)


def _nearest(
    blocks: Run, *, searched: Searched, config: GraphConfig, own: NDArray[np.int64], at: NDArray[np.float32]
) -> Neighbors:
    """Return the nearest rows of these blocks to the queries."""
    vectors = searched.open()
    solver = _solver(vectors, config)
    parts = (solver.among(start, np.asarray(vectors.block(start, stop)), at, own) for start, stop in blocks)
    return nearest_of_parts(parts, own, config.n_neighbors)


def _solver(vectors: Vectors, config: GraphConfig) -> ExactSolver:
    return ExactSolver(config.n_neighbors, vectors.mean.astype(np.float32), np.empty(0, np.int64), config.device)


def _look_through(
    item: tuple[str, Run],
    *,
    searched: Searched,
    artifact: Artifact,
    config: GraphConfig,
    own: NDArray[np.int64],
    at: NDArray[np.float32],
    pools: dict[str, NDArray[np.int64]],
) -> Shard:
    """Write the nearest rows of these blocks to the queries, and the blocks' share of the pool."""
    name, blocks = item
    vectors, dtype = searched.open(), np.float16 if searched.are_halves() else np.float32
    solver = _solver(vectors, config)
    drawn: dict[str, list[NDArray[Any]]] = {pool: [] for pool in POOLS}

    def nearest() -> Iterator[Neighbors]:
        for start, stop in blocks:
            block = np.asarray(vectors.block(start, stop))
            for pool, rows in pools.items():
                here = rows[slice(*np.searchsorted(rows, (start, stop)))]
                drawn[pool].append(block[here - start].astype(dtype, copy=False))
            yield solver.among(start, block, at, own)

    ids, squared = nearest_of_parts(nearest(), own, config.n_neighbors)
    pooled = {pool: np.concatenate(drawn[pool]) for pool in POOLS}
    pieces: list[Arrays] = [{NEIGHBORS: ids, SQUARED_DISTANCES: squared}]
    pieces += [{VECTOR: rows} for rows in pooled.values()]
    return write_pieces(artifact, name, pieces, {pool: len(rows) for pool, rows in pooled.items()})

"""A kNN graph as rows of K neighbours and K affinities, in memory or memory-mapped, read by block or by row.

K is constant, so there are no row pointers; a missing slot is the row's own id with affinity 0.

Shape letters: N rows, B rows asked for, K neighbours.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.artifact.manifest import Shard
from distspectral.storage.rows.columns import to_array
from distspectral.storage.rows.shard_rows import ShardRows, write_columns
from distspectral.storage.rows.vectors import check_range, check_rows

NEIGHBORS = "neighbors"
SQUARED_DISTANCES = "squared_distances"
AFFINITIES = "affinities"

BLOCK_EDGES = 1 << 22

Edges = tuple[NDArray[np.int64], NDArray[np.float32]]
"""(B, K) neighbours and (B, K) affinities."""


class StreamedGraph(Protocol):
    """A graph that is read from its first row to its last: what statistics need."""

    @property
    def n_rows(self) -> int:
        """N."""
        ...

    @property
    def n_neighbors(self) -> int:
        """K."""
        ...

    def block(self, start: int, stop: int) -> Edges:
        """Return neighbours (B, K) int64 and affinities (B, K) float32 of rows ``start`` to ``stop``."""
        ...


class GatheredEdges(Protocol):
    """A graph whose rows are read at random: what samples need."""

    @property
    def n_rows(self) -> int:
        """N."""
        ...

    @property
    def n_neighbors(self) -> int:
        """K."""
        ...

    def gather(self, rows: NDArray[np.int64]) -> Edges:
        """Return neighbours (B, K) int64 and affinities (B, K) float32 of any rows, in any order, repeats allowed."""
        ...


class Graph(StreamedGraph, Protocol):
    """A graph whose rows are read both ways: what training and calibration need."""

    def gather(self, rows: NDArray[np.int64]) -> Edges:
        """Return the same of any rows, in any order, repeats allowed."""
        ...


def edge_blocks(
    graph: StreamedGraph, block_rows: int | None = None
) -> Iterator[tuple[int, NDArray[np.int64], NDArray[np.float32]]]:
    """Yield (first row, neighbours, affinities) of block after block.

    Args:
        graph: N rows.
        block_rows: rows read at a time; by default about four million edges.
    """
    rows = block_rows or max(1, BLOCK_EDGES // graph.n_neighbors)
    for start in range(0, graph.n_rows, rows):
        yield start, *graph.block(start, min(start + rows, graph.n_rows))


class ArrayGraph:
    """A graph in memory.

    Args:
        neighbors: (N, K) ids.
        affinities: (N, K).
    """

    def __init__(self, neighbors: NDArray[np.integer[Any]], affinities: NDArray[np.floating[Any]]) -> None:
        assert neighbors.shape == affinities.shape, (neighbors.shape, affinities.shape)
        self._neighbors = neighbors
        self._affinities = affinities
        self.n_rows, self.n_neighbors = neighbors.shape

    def block(self, start: int, stop: int) -> Edges:
        """Return neighbours (B, K) int64 and affinities (B, K) float32 of rows ``start`` to ``stop``."""
        return self._neighbors[start:stop].astype(np.int64), self._affinities[start:stop].astype(np.float32)

    def gather(self, rows: NDArray[np.int64]) -> Edges:
        """Return the same of any rows, in any order, repeats allowed."""
        return self._neighbors[rows].astype(np.int64), self._affinities[rows].astype(np.float32)


class MappedGraph:
    """The shards of the ``graph`` artifact, opened when a row of theirs is read.

    Picklable and safe to share between threads; see :class:`~distspectral.storage.rows.shard_rows.ShardRows`.

    Args:
        artifact: written by :func:`distspectral.stages.graph.affinities`.
        shards: some of its shards, or those of an unfinished one, in row order; by default those of the manifest.
        weights: the column beside the neighbours.
        reread: whether rows are read more than once: remote shards are then copied to the node as they are opened.

    Raises:
        MissingArtifactError: the artifact is not finished.
    """

    def __init__(
        self,
        artifact: Artifact,
        shards: Sequence[Shard] | None = None,
        weights: str = AFFINITIES,
        *,
        reread: bool = False,
    ) -> None:
        self._again = functools.partial(MappedGraph, artifact, shards, weights, reread=reread)
        found = artifact.manifest().shards if shards is None else shards
        self._rows = ShardRows(artifact, found, [NEIGHBORS, weights], reread=reread)
        self.n_rows, self.n_neighbors = self._rows.n_rows, self._rows.types[0][1]

    def __reduce__(self) -> tuple[Callable[[], MappedGraph], tuple[()]]:
        return self._again, ()

    def block(self, start: int, stop: int) -> Edges:
        """Return neighbours (B, K) int64 and affinities (B, K) float32 of rows ``start`` to ``stop``.

        Raises:
            IndexError: a row number is negative or above N.
        """
        check_range(start, stop, self.n_rows)
        return _as_edges(self._rows.block(start, stop))

    def gather(self, rows: NDArray[np.int64]) -> Edges:
        """Return the same of any rows, in any order, repeats allowed.

        Raises:
            IndexError: a row number is negative or at least N.
        """
        check_rows(rows, self.n_rows)
        return _as_edges(self._rows.gather(rows))


def _as_edges(columns: Sequence[NDArray[Any]]) -> Edges:
    neighbors, affinities = columns
    return neighbors.astype(np.int64), affinities.astype(np.float32)


def read_neighbors(artifact: Artifact, shard: str) -> Edges:
    """Return one shard of a ``neighbors`` artifact: ids (B, K) int64 and squared distances (B, K) float32."""
    table = artifact.read_table(shard)
    ids, squared_distances = (to_array(table[name].combine_chunks()) for name in (NEIGHBORS, SQUARED_DISTANCES))
    return ids.astype(np.int64), squared_distances


def write_rows(
    artifact: Artifact,
    name: str,
    n_rows_global: int,
    columns: dict[str, NDArray[Any]],
    details: dict[str, Any] | None = None,
) -> Shard:
    """Write (B, K) columns as one shard of fixed-size lists; ids as u32 where all rows of the dataset fit into it."""
    small = n_rows_global <= np.iinfo(np.uint32).max
    arrays = {
        key: column.astype(np.uint32 if small else np.uint64) if key == NEIGHBORS else column
        for key, column in columns.items()
    }
    return write_columns(artifact, name, arrays, details)

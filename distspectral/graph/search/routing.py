"""Rows to groups of cells as a shuffle: each block of rows writes one file sorted by group, each group reads its part.

Blocks are ranges of global row numbers, so neither shards nor workers decide what meets what. A group is a region of
neighbouring cells: a row that is in several cells of it travels once.
Shape letters: B rows of a block, R rows of a group, C cells, S groups, D features, M cells of a row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distspectral.graph.search.cells import NO_CELL, Cells
from distspectral.graph.search.duplicates import crowd, row_hashes
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.artifact.manifest import Shard
from distspectral.storage.rows.arrays import ArraysReader, write_arrays
from distspectral.storage.rows.vectors import Vectors

ROW = "row"
HASH = "hash"
CELLS = "cells"
VECTOR = "vector"
COUNTS = "counts"
POWER_ITERATIONS = 8


def bisect(centroids: NDArray[np.float32], weights: NDArray[np.floating[Any]], limit: float) -> NDArray[np.int32]:
    """Return the group (C,) of each cell: halves across the longest axis until none weighs more than ``limit``.

    Args:
        centroids: (C, D).
        weights: (C,) expected rows.
        limit: of a group's weight; a single heavier cell is a group of its own.
    """
    groups = np.zeros(len(centroids), np.int32)
    waiting, n_groups = [np.arange(len(centroids))], 0
    while waiting:
        cells = waiting.pop()
        if len(cells) == 1 or weights[cells].sum() <= limit:
            groups[cells] = n_groups
            n_groups += 1
            continue
        order = cells[np.argsort(_along_longest_axis(centroids[cells]), kind="stable")]
        total = np.cumsum(weights[order])
        half = int(np.clip(np.searchsorted(total, total[-1] / 2) + 1, 1, len(order) - 1))
        waiting += [order[half:], order[:half]]
    return groups


def _along_longest_axis(points: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return each point's coordinate on the first principal axis, by power iteration."""
    centred = points.astype(np.float64) - points.mean(axis=0, dtype=np.float64)
    axis = centred[np.argmax(np.square(centred).sum(axis=1))]
    for _ in range(POWER_ITERATIONS):
        axis = axis / (np.linalg.norm(axis) or 1.0)
        axis = centred.T @ (centred @ axis)
    coordinates: NDArray[np.float64] = centred @ axis
    return coordinates


def route(
    artifact: Artifact,
    name: str,
    vectors: Vectors,
    start: int,
    stop: int,
    cells: Cells,
    groups: NDArray[np.int32],
    n_kept: int,
    *,
    half: bool,
) -> Shard:
    """Write rows ``start`` to ``stop`` sorted by group, one record batch per group that has any.

    Of equal rows in the block only the first ``n_kept`` travel: the others' neighbours follow from those, and a
    million equal rows fill no cell. The receipt counts rows per group (``counts``).

    Args:
        artifact: where to.
        name: of the file.
        vectors: (N, D).
        start: first row.
        stop: row after the last.
        cells: where rows belong.
        groups: (C,) group of each cell.
        n_kept: how many of equal rows travel, K + 1.
        half: whether vectors are kept as float16 (lossless where they are stored so).
    """
    rows = np.asarray(vectors.block(start, stop))
    hashes = row_hashes(rows)
    surplus, _, _ = crowd(hashes, n_kept)
    local = np.delete(np.arange(len(rows)), surplus)
    assigned = cells.assign(rows[local] if len(surplus) else rows).astype(np.int32)
    reached = np.sort(np.where(assigned == NO_CELL, NO_CELL, groups[assigned]), axis=1)
    reached[:, 1:][reached[:, 1:] == reached[:, :-1]] = NO_CELL
    position, column = np.nonzero(reached != NO_CELL)
    group = reached[position, column]
    order = position[np.argsort(group, kind="stable")]
    counts = np.bincount(group, minlength=int(groups.max()) + 1)
    stops = np.cumsum(counts)
    dtype = np.float16 if half else np.float32

    def batches() -> Iterator[dict[str, NDArray[Any]]]:
        for index in np.flatnonzero(counts):
            members = order[stops[index] - counts[index] : stops[index]]
            kept = local[members]
            vector = rows[kept].astype(dtype, copy=False)
            yield {ROW: kept + start, HASH: hashes[kept], CELLS: assigned[members], VECTOR: vector}

    return write_arrays(artifact, name, batches(), {COUNTS: counts.tolist()}, {COUNTS: counts})


def group_sizes(routed: Sequence[Shard]) -> NDArray[np.int64]:
    """Return (S,) rows of each group over all blocks."""
    sizes: NDArray[np.int64] = np.sum([shard.details[COUNTS] for shard in routed], axis=0, dtype=np.int64)
    return sizes


class RoutedGroup:
    """The rows of one group: numbers and cells in memory, vectors where they lie until they are asked for.

    Args:
        artifact: holds the blocks' files.
        names: of these, in row order.
        group: which.
        dim: D.

    Attributes:
        ids: (R,) global row numbers, ascending.
        hashes: (R,) of the vectors, see :mod:`distspectral.graph.search.duplicates`.
        cells: (R, M), the nearest first, ``NO_CELL`` where there are fewer; of other groups too.
    """

    def __init__(self, artifact: Artifact, names: Sequence[str], group: int, dim: int) -> None:
        batches = list(_batches(artifact, names, group))
        self.dim = dim
        self.ids: NDArray[np.int64] = np.concatenate([batch[ROW] for batch in batches])
        self.hashes: NDArray[np.uint64] = np.concatenate([batch[HASH] for batch in batches])
        self.cells: NDArray[np.int32] = np.concatenate([batch[CELLS] for batch in batches])
        self._vectors = [batch[VECTOR] for batch in batches]
        self._offsets = np.cumsum([0, *map(len, self._vectors)])

    def vectors(self, members: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return (B, D) vectors of ascending positions in the group."""
        found = np.empty((len(members), self.dim), np.float32)
        cuts = np.searchsorted(members, self._offsets)
        for index in np.flatnonzero(np.diff(cuts)):
            part = slice(cuts[index], cuts[index + 1])
            found[part] = self._vectors[index][members[part] - self._offsets[index]]
        return found


class WholeGroup:
    """All rows as one group of one cell: what an uncut search solves.

    Args:
        vectors: (N, D).
    """

    def __init__(self, vectors: Vectors) -> None:
        self.ids: NDArray[np.int64] = np.arange(vectors.n_rows, dtype=np.int64)
        self.cells = np.zeros((vectors.n_rows, 1), np.int32)
        self._rows = np.asarray(vectors.block(0, vectors.n_rows))
        self.hashes = row_hashes(self._rows)

    def vectors(self, members: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return (B, D) vectors of rows."""
        return self._rows[members]


def _batches(artifact: Artifact, names: Sequence[str], group: int) -> Iterator[dict[str, NDArray[Any]]]:
    for name in names:
        reader = ArraysReader(artifact, name)
        counts = reader.metadata(COUNTS)
        if counts[group]:
            yield reader.batch(int(np.count_nonzero(counts[:group])))

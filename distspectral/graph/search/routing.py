"""Rows to groups of cells as a shuffle: each run of blocks writes one file sorted by group, each group reads its part.

A group is a region of neighbouring cells: a row that is in several cells of it travels once. Where a group's piece of
a file lies is in the file's receipt, so that reading it is one request.
Shape letters: N rows, B rows of a block, R rows of a group, C cells, S groups, D features, M cells of a row.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from distspectral.graph.search.cells import NO_CELL, Cells
from distspectral.graph.search.duplicates import crowd, row_hashes
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.artifact.manifest import Shard
from distspectral.storage.rows.arrays import Piece, read_pieces, write_pieces
from distspectral.storage.rows.vectors import Vectors

ROW = "row"
HASH = "hash"
CELLS = "cells"
VECTOR = "vector"
POWER_ITERATIONS = 8
ASSIGNED_ROWS = 1 << 18
"""Rows, about, whose cells are looked for at once: with many cells a region has few rows of a block, and meeting its
cells takes as long for ten rows as for a hundred."""


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
    blocks: Sequence[tuple[int, int]],
    cells: Cells,
    groups: NDArray[np.int32],
    n_kept: int,
    *,
    half: bool,
) -> Shard:
    """Write the rows of consecutive blocks sorted by group, one piece per group, of no bytes where it has none.

    Of equal rows in a block only the first ``n_kept`` travel: the others' neighbours follow from those, and a
    million equal rows fill no cell.

    Args:
        artifact: where to.
        name: of the file.
        vectors: (N, D).
        blocks: first row, and row after the last, of each.
        cells: where rows belong.
        groups: (C,) group of each cell.
        n_kept: how many of equal rows travel, K + 1.
        half: whether vectors are kept as float16 (lossless where they are stored so).
    """
    dtype = np.dtype(np.float16 if half else np.float32)
    blocks_rows = [_travelling(vectors, start, stop, n_kept) for start, stop in blocks]
    _assign(blocks_rows, cells, dtype)
    dealt = [_Dealt.of(columns, groups) for columns in blocks_rows]
    return write_pieces(artifact, name, (_joined(dealt, group) for group in range(int(groups.max()) + 1)))


def _travelling(vectors: Vectors, start: int, stop: int, n_kept: int) -> dict[str, NDArray[Any]]:
    """Return the columns of a block's rows that travel."""
    rows = np.asarray(vectors.block(start, stop))
    hashes = row_hashes(rows)
    columns: dict[str, NDArray[Any]] = {ROW: np.arange(start, stop), HASH: hashes, VECTOR: rows}
    surplus, _, _ = crowd(hashes, n_kept)
    return {key: np.delete(column, surplus, axis=0) for key, column in columns.items()} if len(surplus) else columns


def _assign(blocks: Sequence[dict[str, NDArray[Any]]], cells: Cells, dtype: np.dtype[Any]) -> None:
    """Add the column of cells to blocks, several of them at once, and cast their vectors."""
    ends = np.cumsum([len(columns[ROW]) for columns in blocks])
    for part in np.split(np.arange(len(blocks)), np.flatnonzero(np.diff(ends // ASSIGNED_ROWS)) + 1):
        some = [blocks[index] for index in part]
        rows = some[0][VECTOR] if len(some) == 1 else np.concatenate([columns[VECTOR] for columns in some])
        assigned = np.split(
            cells.assign(rows).astype(np.int32), np.cumsum([len(columns[ROW]) for columns in some])[:-1]
        )
        for columns, of_block in zip(some, assigned, strict=True):
            columns[CELLS] = of_block
            columns[VECTOR] = columns[VECTOR].astype(dtype, copy=False)


@dataclasses.dataclass(frozen=True)
class _Dealt:
    """The rows of a block that travel, and which of them go to which group.

    Attributes:
        columns: of the file, (B,) or (B, *), in row order.
        order: (copies,) positions in the columns, group by group.
        stops: (S,) where in ``order`` each group ends.
    """

    columns: dict[str, NDArray[Any]]
    order: NDArray[np.int64]
    stops: NDArray[np.int64]

    @classmethod
    def of(cls, columns: dict[str, NDArray[Any]], groups: NDArray[np.int32]) -> Self:
        assigned = columns[CELLS]
        reached = np.sort(np.where(assigned == NO_CELL, NO_CELL, groups[assigned]), axis=1)
        reached[:, 1:][reached[:, 1:] == reached[:, :-1]] = NO_CELL
        position, column = np.nonzero(reached != NO_CELL)
        group = reached[position, column]
        order = position[np.argsort(group, kind="stable")]
        stops = np.cumsum(np.bincount(group, minlength=int(groups.max()) + 1))
        return cls(columns, order, stops)

    def members(self, group: int) -> NDArray[np.int64]:
        """Return the positions of a group's rows, ascending."""
        return self.order[self.stops[group - 1] if group else 0 : self.stops[group]]


def _joined(dealt: Sequence[_Dealt], group: int) -> dict[str, NDArray[Any]]:
    members = [block.members(group) for block in dealt]
    return {
        key: np.concatenate([block.columns[key][rows] for block, rows in zip(dealt, members, strict=True)])
        for key in dealt[0].columns
    }


def surplus_rows(
    vectors: Vectors, blocks: Sequence[tuple[int, int]], n_kept: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows of blocks that :func:`route` leaves behind, ascending, and the first equal row of each."""
    late, first = [], []
    for start, stop in blocks:
        surplus, equal, _ = crowd(row_hashes(np.asarray(vectors.block(start, stop))), n_kept)
        late.append(surplus + start)
        first.append(equal + start)
    return np.concatenate(late), np.concatenate(first)


class RoutedGroup:
    """The rows of one group: numbers and cells in memory, vectors where they lie until they are asked for.

    Args:
        artifact: holds the routed files.
        pieces: of the group, in row order; see :func:`distspectral.storage.rows.arrays.pieces_at`.
        dim: D.

    Attributes:
        ids: (R,) global row numbers, ascending.
        hashes: (R,) of the vectors, see :mod:`distspectral.graph.search.duplicates`.
        cells: (R, M), the nearest first, ``NO_CELL`` where there are fewer; of other groups too.
    """

    def __init__(self, artifact: Artifact, pieces: Sequence[Piece], dim: int) -> None:
        batches = list(read_pieces(artifact, pieces))
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

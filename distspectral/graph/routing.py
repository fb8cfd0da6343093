"""Rows to cells as a shuffle: each block of rows writes one file sorted by cell, each cell reads its part of all files.

Blocks are ranges of global row numbers, so neither shards nor workers decide what meets what.
Shape letters: B rows of a block, C cells, D features.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distspectral.graph.cells import Cells
from distspectral.graph.duplicates import crowd, row_hashes
from distspectral.storage.arrays import ArraysReader, write_arrays
from distspectral.storage.artifacts import Artifact
from distspectral.storage.manifest import Shard
from distspectral.storage.vectors import Vectors

ROW = "row"
VECTOR = "vector"
COUNTS = "counts"


def route(
    artifact: Artifact,
    name: str,
    vectors: Vectors,
    start: int,
    stop: int,
    cells: Cells,
    n_kept: int,
    *,
    half: bool,
) -> Shard:
    """Write rows ``start`` to ``stop`` sorted by cell, one record batch per cell that has any.

    Of equal rows in the block only the first ``n_kept`` travel: the others' neighbours follow from those, and a
    million equal rows fill no cell. The receipt counts rows per cell (``counts``) and those left out (``surplus``).

    Args:
        artifact: where to.
        name: of the file.
        vectors: (N, D).
        start: first row.
        stop: row after the last.
        cells: where rows belong.
        n_kept: how many of equal rows travel, K + 1.
        half: whether vectors are kept as float16 (lossless where they are stored so).
    """
    rows = np.asarray(vectors.block(start, stop))
    surplus, _, _ = crowd(row_hashes(rows), n_kept)
    local = np.delete(np.arange(len(rows)), surplus)
    assigned = cells.assign(rows[local])
    counts = np.bincount(assigned[assigned >= 0], minlength=len(cells))
    order = np.argsort(assigned, axis=None, kind="stable")[np.count_nonzero(assigned < 0) :]
    sorted_rows = local[order // assigned.shape[1]]
    stops = np.cumsum(counts)
    dtype = np.float16 if half else np.float32

    def batches() -> Iterator[dict[str, NDArray[Any]]]:
        for cell in np.flatnonzero(counts):
            members = sorted_rows[stops[cell] - counts[cell] : stops[cell]]
            yield {ROW: members + start, VECTOR: rows[members].astype(dtype, copy=False)}

    details = {COUNTS: counts.tolist(), "surplus": len(surplus)}
    return write_arrays(artifact, name, batches(), details, {COUNTS: counts})


def cell_sizes(routed: Sequence[Shard]) -> NDArray[np.int64]:
    """Return (C,) rows of each cell over all blocks."""
    sizes: NDArray[np.int64] = np.sum([shard.details[COUNTS] for shard in routed], axis=0, dtype=np.int64)
    return sizes


def read_cell(
    artifact: Artifact, names: Sequence[str], cell: int, dim: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return a cell's row numbers (B,), ascending, and vectors (B, D) from the blocks' files, given in row order."""
    ids, vectors = [np.empty(0, np.int64)], [np.empty((0, dim), np.float32)]
    for batch in _batches(artifact, names, cell):
        ids.append(batch[ROW])
        vectors.append(batch[VECTOR].astype(np.float32, copy=False))
    return np.concatenate(ids), np.concatenate(vectors)


def read_cell_rows(artifact: Artifact, names: Sequence[str], cell: int) -> NDArray[np.int64]:
    """Return a cell's row numbers (B,), ascending."""
    return np.concatenate([np.empty(0, np.int64), *(batch[ROW] for batch in _batches(artifact, names, cell))])


def _batches(artifact: Artifact, names: Sequence[str], cell: int) -> Iterator[dict[str, NDArray[Any]]]:
    for name in names:
        reader = ArraysReader(artifact, name)
        counts = reader.metadata(COUNTS)
        if counts[cell]:
            yield reader.batch(int(np.count_nonzero(counts[:cell])))


def group_cells(sizes: NDArray[np.int64], rows_per_group: int) -> list[list[int]]:
    """Return consecutive cells in groups of about ``rows_per_group`` rows at most: one task, one file each."""
    groups: list[list[int]] = []
    filled = rows_per_group
    for cell in np.flatnonzero(sizes).tolist():
        if filled + sizes[cell] > rows_per_group:
            groups.append([])
            filled = 0
        groups[-1].append(cell)
        filled += int(sizes[cell])
    return groups

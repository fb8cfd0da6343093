"""Blocks of rows collect their neighbour lists from all cells: copies merge by id, what is missing is completed.

Shape letters: N rows, B rows of the blocks, K neighbours, M copies of a row.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from distspectral.graph.config import GraphConfig
from distspectral.graph.search.exact import ExactSolver
from distspectral.graph.search.lists import Neighbors, merge_lists
from distspectral.graph.search.local import of_equal
from distspectral.graph.search.routing import ROW, surplus_rows
from distspectral.graph.store import NEIGHBORS, SQUARED_DISTANCES, write_rows
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.artifact.manifest import Shard
from distspectral.storage.rows.arrays import Piece, read_pieces
from distspectral.storage.rows.vectors import Vectors


def merge_block(
    artifact: Artifact,
    name: str,
    vectors: Vectors,
    blocks: Sequence[tuple[int, int]],
    solved: Sequence[Piece],
    config: GraphConfig,
    sample: tuple[NDArray[np.int64], NDArray[np.float32]],
) -> Shard:
    """Write the neighbour lists of the rows of consecutive blocks.

    The receipt counts ``surplus`` duplicates, rows ``completed`` by exact search because their cells were too small,
    and, of the sample, ``asked`` neighbours and ``hits`` among those found.

    Args:
        artifact: where the cells' lists are and the blocks' go.
        name: of the blocks' file.
        vectors: (N, D).
        blocks: first row, and row after the last, of each; as they were routed.
        solved: lists of these rows, of all groups.
        config: number of neighbours and device.
        sample: sampled rows of these blocks and the true squared distance of their last neighbour.
    """
    start, stop = blocks[0][0], blocks[-1][1]
    rows, ids, squared = merge_lists(*_collected(artifact, solved, config.n_neighbors))
    surplus = np.setdiff1d(np.arange(start, stop), rows, assume_unique=True)
    if len(surplus):
        crowded = [cut for cut in blocks if np.diff(np.searchsorted(surplus, cut))[0]]
        late, first = surplus_rows(vectors, crowded, config.n_neighbors + 1)
        assert np.array_equal(late, surplus), "only surplus duplicates are not routed"
        late, first = late - start, first - start
        found, found_squared = ids, squared
        ids = np.empty((stop - start, config.n_neighbors), np.int64)
        squared = np.empty(ids.shape, np.float32)
        ids[rows - start], squared[rows - start] = found, found_squared
        ids[late], squared[late] = of_equal(surplus, first + start, ids[first], squared[first])
    short = np.flatnonzero(np.isinf(squared[:, -1]))
    if len(short) and vectors.n_rows > config.n_neighbors:
        ids[short], squared[short] = _completed(vectors, short + start, config)
    queries, limits = sample
    hits = int(np.count_nonzero(squared[queries - start] <= limits[:, None]))
    details = {
        "surplus": len(surplus),
        "completed": len(short),
        "asked": len(queries) * config.n_neighbors,
        "hits": hits,
    }
    return write_rows(artifact, name, vectors.n_rows, {NEIGHBORS: ids, SQUARED_DISTANCES: squared}, details)


def _collected(
    artifact: Artifact, solved: Sequence[Piece], n_neighbors: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Return lists from all groups: (M,), (M, K) and (M, K)."""
    rows = [np.empty(0, np.int64)]
    ids, distances = [np.empty((0, n_neighbors), np.int64)], [np.empty((0, n_neighbors), np.float32)]
    for lists in read_pieces(artifact, solved):
        rows.append(lists[ROW])
        ids.append(lists[NEIGHBORS].astype(np.int64, copy=False))
        distances.append(lists[SQUARED_DISTANCES])
    return np.concatenate(rows), np.concatenate(ids), np.concatenate(distances)


def _completed(vectors: Vectors, own: NDArray[np.int64], config: GraphConfig) -> Neighbors:
    """Return the exact neighbours of a few rows by a pass over all."""
    solver = ExactSolver(config.n_neighbors, vectors.mean.astype(np.float32), np.empty(0, np.int64), config.device)
    return solver.among_all(vectors, own)

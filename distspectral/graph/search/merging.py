"""A block of rows collects its neighbour lists from all cells: copies merge by id, what is missing is completed.

Shape letters: N rows, B rows of the block, K neighbours, M copies of a row.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from distspectral.graph.config import GraphConfig
from distspectral.graph.search.duplicates import crowd, row_hashes
from distspectral.graph.search.exact import ExactSolver
from distspectral.graph.search.lists import Neighbors, merge_lists
from distspectral.graph.search.local import of_equal
from distspectral.graph.search.routing import ROW
from distspectral.graph.store import NEIGHBORS, SQUARED_DISTANCES, write_rows
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.artifact.manifest import Shard
from distspectral.storage.rows.arrays import ArraysReader
from distspectral.storage.rows.vectors import Vectors


def merge_block(
    artifact: Artifact,
    name: str,
    vectors: Vectors,
    start: int,
    stop: int,
    solved: Sequence[str],
    config: GraphConfig,
    sample: tuple[NDArray[np.int64], NDArray[np.float32]],
) -> Shard:
    """Write the neighbour lists of rows ``start`` to ``stop``.

    The receipt counts ``surplus`` duplicates, rows ``completed`` by exact search because their cells were too small,
    and, of the sample, ``asked`` neighbours and ``hits`` among those found.

    Args:
        artifact: where the cells' lists are and the block's go.
        name: of the block's file.
        vectors: (N, D).
        start: first row.
        stop: row after the last.
        solved: files of the cells' lists.
        config: number of neighbours and device.
        sample: sampled rows of this block and the true squared distance of their last neighbour.
    """
    rows, ids, squared = merge_lists(*_collected(artifact, solved, start, stop, config.n_neighbors))
    surplus = np.setdiff1d(np.arange(start, stop), rows, assume_unique=True)
    if len(surplus):
        late, first, _ = crowd(row_hashes(np.asarray(vectors.block(start, stop))), config.n_neighbors + 1)
        assert np.array_equal(late + start, surplus), "only surplus duplicates are not routed"
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
    artifact: Artifact, solved: Sequence[str], start: int, stop: int, n_neighbors: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Return the lists of a block's rows from all groups: (M,), (M, K) and (M, K)."""
    rows = [np.empty(0, np.int64)]
    ids, distances = [np.empty((0, n_neighbors), np.int64)], [np.empty((0, n_neighbors), np.float32)]
    for name in solved:
        lists = ArraysReader(artifact, name).batch(0)
        part = slice(*np.searchsorted(lists[ROW], (start, stop)))
        rows.append(lists[ROW][part])
        ids.append(lists[NEIGHBORS][part].astype(np.int64, copy=False))
        distances.append(lists[SQUARED_DISTANCES][part])
    return np.concatenate(rows), np.concatenate(ids), np.concatenate(distances)


def _completed(vectors: Vectors, own: NDArray[np.int64], config: GraphConfig) -> Neighbors:
    """Return the exact neighbours of a few rows by a pass over all."""
    solver = ExactSolver(config.n_neighbors, vectors.mean.astype(np.float32), np.empty(0, np.int64), config.device)
    return solver.among_all(vectors, own)

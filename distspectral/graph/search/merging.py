"""A block of rows collects its neighbour lists from all cells: copies merge by id.

Rows whose cells hold fewer than K others are completed before, all of them in one pass over all rows.

Shape letters: N rows, B rows of the block, K neighbours, M copies of a row, S short rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from distspectral.errors import SearchFailedError
from distspectral.graph.config import GraphConfig
from distspectral.graph.search.duplicates import crowd, row_hashes
from distspectral.graph.search.lists import Neighbors, merge_lists
from distspectral.graph.search.local import of_equal
from distspectral.graph.search.routing import ROW
from distspectral.graph.store import NEIGHBORS, SQUARED_DISTANCES, write_rows
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.artifact.manifest import Shard
from distspectral.storage.rows.arrays import ArraysReader, write_arrays
from distspectral.storage.rows.vectors import Vectors

MOST_COMPLETED = 1 << 14
"""Rows that are completed, however many there are: each row then meets as many more, thrice what cells of 1,000 rows in
which it has two copies make it meet."""


def short_rows(solved: Sequence[Shard]) -> NDArray[np.int64]:
    """Return the rows (S,), ascending, that found fewer than K neighbours in a group because their cells are smaller.

    Args:
        solved: receipts of the groups' lists; ``short`` names the rows.

    Raises:
        SearchFailedError: they are more than may be completed.
    """
    rows = np.unique(np.concatenate([np.asarray(shard.details["short"], np.int64) for shard in solved]))
    if len(rows) > MOST_COMPLETED:
        worst = sorted(solved, key=lambda shard: len(shard.details["short"]), reverse=True)[:3]
        named = ", ".join(f"{shard.name} ({len(shard.details['short']):,})" for shard in worst)
        raise SearchFailedError(
            f"{len(rows):,} rows lie in cells of no more than graph.n_neighbors rows, most of them in {named}; each "
            f"would be compared with all rows, and at most {MOST_COMPLETED:,} are. The cells do not fit these rows: "
            "lower graph.n_neighbors, change graph.seed, or set graph.method to exact",
            parameters=["graph.n_neighbors", "graph.seed", "graph.method"],
        )
    return rows


def write_completed(artifact: Artifact, name: str, rows: NDArray[np.int64], found: Neighbors) -> Shard:
    """Write the lists of short rows, found among all rows, as one more group's.

    Args:
        artifact: where to.
        name: of the file.
        rows: (S,) ascending.
        found: (S, K) neighbours and squared distances.

    Raises:
        SearchFailedError: rows found fewer than K neighbours among all.
    """
    neighbors, squared = found
    if len(lost := rows[np.isinf(squared[:, -1])]):
        raise SearchFailedError(
            f"{len(lost):,} rows, the first of them row {lost[0]:,}, found fewer than {squared.shape[1]} neighbours "
            "among all rows: their distances are beyond float32; scale the vectors down"
        )
    return write_arrays(artifact, name, [{ROW: rows, NEIGHBORS: neighbors, SQUARED_DISTANCES: squared}])


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

    The receipt counts ``surplus`` duplicates and, of the sample, ``asked`` neighbours and ``hits`` among those found.

    Args:
        artifact: where the cells' lists are and the block's go.
        name: of the block's file.
        vectors: (N, D).
        start: first row.
        stop: row after the last.
        solved: files of the cells' lists and, where rows were short, of the completed ones.
        config: number of neighbours.
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
    if vectors.n_rows > config.n_neighbors:
        assert np.isfinite(squared[:, -1]).all(), "short rows are completed before blocks are merged"
    queries, limits = sample
    hits = int(np.count_nonzero(squared[queries - start] <= limits[:, None]))
    details = {
        "surplus": len(surplus),
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

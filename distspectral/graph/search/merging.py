"""Blocks of rows collect their neighbour lists from all cells: copies merge by id.

Rows whose cells hold fewer than K others are completed before, all of them in one pass over all rows.

Shape letters: N rows, B rows of the blocks, K neighbours, M copies of a row, S short rows.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distspectral.errors import SearchFailedError
from distspectral.graph.config import GraphConfig
from distspectral.graph.search.lists import Neighbors, merge_lists
from distspectral.graph.search.local import of_equal
from distspectral.graph.search.routing import ROW, surplus_rows
from distspectral.graph.store import NEIGHBORS, SQUARED_DISTANCES, write_rows
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.artifact.manifest import Shard
from distspectral.storage.rows.arrays import Piece, read_pieces, write_pieces
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


def write_lists(
    artifact: Artifact,
    name: str,
    lists: Mapping[str, NDArray[Any]],
    starts: NDArray[np.int64],
    details: dict[str, Any],
) -> Shard:
    """Write lists as :func:`merge_block` collects them: one piece for each of the runs of blocks.

    Args:
        artifact: where to.
        name: of the file.
        lists: columns, by ascending ``row``.
        starts: first row of each run.
        details: facts for the receipt.
    """
    ends = np.append(np.searchsorted(lists[ROW], starts), len(lists[ROW])).tolist()
    pieces = ({key: column[low:high] for key, column in lists.items()} for low, high in itertools.pairwise(ends))
    return write_pieces(artifact, name, pieces, details)


def completed_lists(rows: NDArray[np.int64], found: Neighbors) -> dict[str, NDArray[Any]]:
    """Return the lists of short rows, found among all rows, as columns.

    Args:
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
    return {ROW: rows, NEIGHBORS: neighbors, SQUARED_DISTANCES: squared}


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

    The receipt counts ``surplus`` duplicates and, of the sample, ``asked`` neighbours and ``hits`` among those found.

    Args:
        artifact: where the cells' lists are and the blocks' go.
        name: of the blocks' file.
        vectors: (N, D).
        blocks: first row, and row after the last, of each; as they were routed.
        solved: lists of these rows, of all groups and, where rows were short, of the completed ones.
        config: number of neighbours.
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

"""Candidates of several searches become one neighbour list: best first, ties by id, no id twice, never the row itself.

Shape letters: B rows, C candidates, K neighbours, M lists.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

Neighbors = tuple[NDArray[np.int64], NDArray[np.float32]]
"""(B, K) ids and (B, K) squared distances, ascending by (distance, id)."""

SORTED_BYTES = 1 << 26
"""Most bytes of candidates that are sorted at once."""
INFINITY = np.uint64(0x7F800000 << 32)
"""The key of a distance of infinity and id 0: no valid key is as large."""


def top_k(
    ids: NDArray[np.int64], squared_distances: NDArray[np.float32], own: NDArray[np.int64], n_neighbors: int
) -> Neighbors:
    """Return each row's K nearest candidates in ascending order of (distance, id).

    The order decides ties, so the result depends neither on the candidates' order nor on where they came from.

    Args:
        ids: (B, C) candidates, repeats allowed if they bring the same distance; negative: no candidate.
        squared_distances: (B, C), none negative.
        own: (B,) ids of the rows themselves, dropped by id: among duplicates the row need not come first.
        n_neighbors: K; where a row has fewer candidates the rest is its own id at distance infinity.

    Returns:
        neighbors: (B, K) int64.
        squared_distances: (B, K) float32.
    """
    squared_distances = np.abs(squared_distances.astype(np.float32, copy=False))  # one sign of zero
    void = (ids < 0) | (ids == own[:, None]) | np.isinf(squared_distances)
    if ids.size and int(ids.max()) <= np.iinfo(np.uint32).max:
        neighbors, distances = _by_keys(ids, squared_distances, void, n_neighbors)
    else:
        neighbors, distances = _by_columns(ids, squared_distances, void, n_neighbors)
    neighbors = np.where(np.isinf(distances), own[:, None], neighbors)
    if (missing := n_neighbors - neighbors.shape[1]) > 0:
        neighbors = np.hstack([neighbors, np.repeat(own[:, None], missing, axis=1)])
        distances = np.pad(distances, ((0, 0), (0, missing)), constant_values=np.inf)
    return neighbors, distances


def nearest_of_parts(parts: Iterable[Neighbors], own: NDArray[np.int64], n_neighbors: int) -> Neighbors:
    """Return each row's K nearest candidates as :func:`top_k` does, of candidates that come part by part.

    Args:
        parts: ids and squared distances, (B, C) each.
        own: (B,) ids of the rows themselves.
        n_neighbors: K.
    """
    ids, distances = np.empty((len(own), 0), np.int64), np.empty((len(own), 0), np.float32)
    for more_ids, more in parts:
        ids, distances = top_k(np.hstack([ids, more_ids]), np.hstack([distances, more]), own, n_neighbors)
    return ids, distances


def _by_keys(
    ids: NDArray[np.int64], squared_distances: NDArray[np.float32], void: NDArray[np.bool_], n_neighbors: int
) -> Neighbors:
    """Sort one 64-bit number a candidate: bits of a float that is not negative are in the order of their values."""
    keys = np.ascontiguousarray(squared_distances).view(np.uint32).astype(np.uint64)
    keys <<= np.uint64(32)
    keys |= ids.astype(np.uint64)
    keys[void] = INFINITY
    keys.sort(axis=1)
    repeated = keys[:, 1:] == keys[:, :-1]
    if repeated[:, :n_neighbors].any():
        keys[:, 1:][repeated] = INFINITY
        keys.sort(axis=1)
    best = keys[:, :n_neighbors]
    distances = (best >> np.uint64(32)).astype(np.uint32).view(np.float32)
    return (best & np.uint64(0xFFFFFFFF)).astype(np.int64), distances


def _by_columns(
    ids: NDArray[np.int64], squared_distances: NDArray[np.float32], void: NDArray[np.bool_], n_neighbors: int
) -> Neighbors:
    """Sort by two columns: several times slower, for ids beyond 32 bits."""
    distances = np.where(void, np.float32(np.inf), squared_distances)
    order = np.lexsort((ids, distances), axis=1)
    ids, distances = np.take_along_axis(ids, order, axis=1), np.take_along_axis(distances, order, axis=1)
    distances[:, 1:][ids[:, 1:] == ids[:, :-1]] = np.inf
    best = np.argsort(distances, axis=1, kind="stable")[:, :n_neighbors]
    return np.take_along_axis(ids, best, axis=1), np.take_along_axis(distances, best, axis=1)


def merge_lists(
    rows: NDArray[np.int64], neighbors: NDArray[np.int64], squared_distances: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Return one list per row, rows ascending, of lists of which a row may have several.

    Where lists bring one neighbour at several distances, which devices round differently, the smallest counts.

    Args:
        rows: (M,) whose list it is.
        neighbors: (M, K); missing ones at distance infinity.
        squared_distances: (M, K).
    """
    order = np.argsort(rows, kind="stable")
    own, firsts, copies = np.unique(rows[order], return_index=True, return_counts=True)
    merged_ids, merged = neighbors[order[firsts]], squared_distances[order[firsts]]
    n_neighbors = neighbors.shape[1]
    for n_copies in np.unique(copies[copies > 1]).tolist():
        several = np.flatnonzero(copies == n_copies)
        step = max(1, SORTED_BYTES // (40 * n_copies * n_neighbors))
        for low in range(0, len(several), step):
            part = several[low : low + step]
            lists = order[firsts[part][:, None] + np.arange(n_copies)]
            shape = (len(part), n_copies * n_neighbors)
            candidates = neighbors[lists].reshape(shape), squared_distances[lists].reshape(shape)
            merged_ids[part], merged[part] = top_k(*candidates, own[part], n_neighbors)
            ascending = np.sort(merged_ids[part], axis=1)
            twice = np.flatnonzero((ascending[:, 1:] == ascending[:, :-1]).any(axis=1))
            again = part[twice]
            candidates = _once_each(candidates[0][twice], candidates[1][twice])
            merged_ids[again], merged[again] = top_k(*candidates, own[again], n_neighbors)
    return own, merged_ids, merged


def _once_each(ids: NDArray[np.int64], squared_distances: NDArray[np.float32]) -> Neighbors:
    """Return the same candidates (B, C) by ascending id, all but the nearest of each id made negative."""
    order = np.lexsort((squared_distances, ids), axis=1)
    ids, squared_distances = (
        np.take_along_axis(ids, order, axis=1),
        np.take_along_axis(squared_distances, order, axis=1),
    )
    ids[:, 1:][ids[:, 1:] == ids[:, :-1]] = -1
    return ids, squared_distances

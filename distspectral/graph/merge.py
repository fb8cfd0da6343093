"""Candidates of several searches become one neighbour list: best first, ties by id, no id twice, never the row itself.

Shape letters: B rows, C candidates, K neighbours.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def top_k(
    ids: NDArray[np.int64], squared_distances: NDArray[np.float32], own: NDArray[np.int64], n_neighbors: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return each row's K nearest candidates in ascending order of (distance, id).

    The order decides ties, so the result depends neither on the candidates' order nor on where they came from.

    Args:
        ids: (B, C) candidates, repeats allowed (the smallest distance counts); negative: no candidate.
        squared_distances: (B, C).
        own: (B,) ids of the rows themselves, dropped by id: among duplicates the row need not come first.
        n_neighbors: K; where a row has fewer candidates the rest is its own id at distance infinity.

    Returns:
        neighbors: (B, K) int64.
        squared_distances: (B, K) float32.
    """
    order = np.lexsort((squared_distances, ids), axis=1)
    ids = np.take_along_axis(ids, order, axis=1)
    distances = np.take_along_axis(squared_distances, order, axis=1).astype(np.float32, copy=False)
    void = (ids < 0) | (ids == own[:, None])
    void[:, 1:] |= ids[:, 1:] == ids[:, :-1]
    distances[void] = np.inf
    best = np.argsort(distances, axis=1, kind="stable")[:, :n_neighbors]  # stable: ids are ascending already
    distances = np.take_along_axis(distances, best, axis=1)
    neighbors = np.where(np.isinf(distances), own[:, None], np.take_along_axis(ids, best, axis=1))
    if (missing := n_neighbors - best.shape[1]) > 0:
        neighbors = np.hstack([neighbors, np.repeat(own[:, None], missing, axis=1)])
        distances = np.pad(distances, ((0, 0), (0, missing)), constant_values=np.inf)
    return neighbors, distances

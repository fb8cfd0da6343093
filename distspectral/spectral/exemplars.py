"""Which rows stand for their cluster: the first of each cluster by some value.

Shape letters: B rows, M rows kept of each cluster.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def first_of_each(
    clusters: NDArray[np.integer[Any]], values: NDArray[np.floating[Any]], rows: NDArray[np.int64], n_kept: int
) -> NDArray[np.int64]:
    """Return the places (any,) of the rows with the least values of each cluster, by cluster, value and row.

    Args:
        clusters: (B,) of each row.
        values: (B,); rows with infinite ones stand for nothing.
        rows: (B,) numbers that break ties.
        n_kept: M, at most.
    """
    order: NDArray[np.int64] = np.lexsort((rows, values, clusters))
    order = order[np.isfinite(values[order])]
    return order[rank_within(clusters[order]) < n_kept]


def rank_within(clusters: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    """Return how many rows of the same cluster come before each (B,), of ascending clusters (B,)."""
    ranks: NDArray[np.int64] = np.arange(len(clusters)) - np.searchsorted(clusters, clusters)
    return ranks

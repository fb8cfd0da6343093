"""The k nearest neighbours of rows of a sparse matrix, found exactly and never made dense.

Squared distances come from products, |q|^2 + |b|^2 - 2 q.b in float64: its rounding is below that of the float32 they
are given in, and equal rows are at zero to the bit, because both sides add the same squares in the same order.

Shape letters: N rows, D features, B query rows, C candidates, K neighbours.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from distspectral.graph.search.lists import Neighbors, top_k
from distspectral.storage.rows.sparse import SparseVectors

BLOCK_BYTES = 1 << 26
"""Size of one block of distances in float64; a search holds about four of them."""


def sparse_neighbors(vectors: SparseVectors, n_neighbors: int, block_bytes: int = BLOCK_BYTES) -> Neighbors:
    """Return the K nearest other rows of each row, ascending by (distance, id).

    Args:
        vectors: (N, D).
        n_neighbors: K.
        block_bytes: of the distances at hand, which decide nothing but memory.
    """
    from sklearn.metrics.pairwise import euclidean_distances  # a third of a second, which dense rows do without
    from sklearn.utils.extmath import row_norms

    matrix = vectors.matrix().astype(np.float64)
    lengths = row_norms(matrix, squared=True)
    step = max(1, block_bytes // (8 * vectors.n_rows))
    parts = []
    for start in range(0, vectors.n_rows, step):
        part = slice(start, min(start + step, vectors.n_rows))
        squared = euclidean_distances(
            matrix[part], matrix, squared=True, X_norm_squared=lengths[part], Y_norm_squared=lengths
        )
        parts.append(_nearest(squared.astype(np.float32), np.arange(part.start, part.stop), n_neighbors))
    neighbors, distances = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return neighbors, distances


def _nearest(squared: NDArray[np.float32], own: NDArray[np.int64], n_neighbors: int) -> Neighbors:
    """Return the K nearest of all rows from squared distances (B, N); all that tie for the last place compete."""
    place = min(n_neighbors, squared.shape[1] - 1)  # the row itself is one of them
    near = squared <= np.partition(squared, place, axis=1)[:, place : place + 1]
    rows, ids = np.nonzero(near)
    counts = near.sum(1)
    slots = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    candidates = np.full((len(own), counts.max()), -1, np.int64)
    distances = np.full(candidates.shape, np.inf, np.float32)
    candidates[rows, slots], distances[rows, slots] = ids, squared[rows, ids]
    return top_k(candidates, distances, own, n_neighbors)

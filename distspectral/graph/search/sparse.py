"""The k nearest neighbours of rows of a sparse matrix, found exactly and never made dense.

Squared distances come from products, |q|^2 + |b|^2 - 2 q.b in float64: its rounding is below that of the float32 they
are given in, and equal rows are at zero to the bit, because both sides add the same squares in the same order. Rows
around their mean m are dense, their products are not needed: (q - m).(b - m) = q.b - q.m - b.m + m.m.

Shape letters: N rows, D features, B query rows, C candidates, K neighbours.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from distspectral.graph.config import Metric
from distspectral.graph.distances import ROUNDING
from distspectral.graph.search.lists import Neighbors, top_k
from distspectral.storage.rows.sparse import SparseVectors

BLOCK_BYTES = 1 << 26
"""Size of one block of distances in float64; a search holds about four of them."""


def sparse_neighbors(
    vectors: SparseVectors, n_neighbors: int, metric: Metric = "l2", block_bytes: int = BLOCK_BYTES
) -> Neighbors:
    """Return the K nearest other rows of each row, ascending by (distance, id).

    Args:
        vectors: (N, D).
        n_neighbors: K.
        metric: as which :func:`~distspectral.graph.distances.under_metric` has Euclidean distances.
        block_bytes: of the distances at hand, which decide nothing but memory.
    """
    squared = _squared_distances(vectors, metric)
    step = max(1, block_bytes // (8 * vectors.n_rows))
    parts = []
    for start in range(0, vectors.n_rows, step):
        part = slice(start, min(start + step, vectors.n_rows))
        parts.append(_nearest(squared(part).astype(np.float32), np.arange(part.start, part.stop), n_neighbors))
    neighbors, distances = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return neighbors, distances


def _squared_distances(vectors: SparseVectors, metric: Metric) -> Callable[[slice], NDArray[np.float64]]:
    """Return what computes squared distances (B, N) of some rows to all."""
    from sklearn.metrics.pairwise import euclidean_distances  # a third of a second, which dense rows do without
    from sklearn.preprocessing import normalize
    from sklearn.utils.extmath import row_norms

    matrix = vectors.matrix().astype(np.float64)
    if metric == "centered_cosine":
        return _around(matrix, vectors.mean)
    if metric == "cosine":
        matrix = normalize(matrix, copy=False)
    squares = row_norms(matrix, squared=True)

    def distances(part: slice) -> NDArray[np.float64]:
        if metric == "inner_product":
            found: NDArray[np.float64] = squares[part, None] + squares.max() - 2 * _products(matrix, part)
        else:
            norms = {"X_norm_squared": squares[part], "Y_norm_squared": squares}
            found = euclidean_distances(matrix[part], matrix, squared=True, **norms)
        return found

    return distances


def _around(matrix: sparse.csr_matrix, mean: NDArray[np.float64]) -> Callable[[slice], NDArray[np.float64]]:
    """Return what computes squared distances between rows (N, D) around their mean, scaled to length 1.

    One that lies at the mean has no direction and stays there, as a zero row does under the cosine.
    """
    from sklearn.utils.extmath import row_norms

    along, square = matrix @ mean, float(mean @ mean)
    squares = row_norms(matrix, squared=True) - along - along + square
    somewhere = squares > ROUNDING**2 * square
    squares = np.where(somewhere, squares, np.inf)
    ones = somewhere.astype(np.float64)

    def distances(part: slice) -> NDArray[np.float64]:
        products = _products(matrix, part) - along[part, None] - along + square
        products /= np.sqrt(squares[part, None] * squares)  # of equal rows exactly 1
        found: NDArray[np.float64] = np.maximum(ones[part, None] + ones - 2 * products, 0)
        return found

    return distances


def _products(matrix: sparse.csr_matrix, part: slice) -> NDArray[np.float64]:
    """Return the inner products (B, N) of some rows with all."""
    products: Any = (matrix[part] @ matrix.T).toarray()
    return np.asarray(products, np.float64)


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

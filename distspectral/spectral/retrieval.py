"""How well a row's neighbours share its class: Recall@K and MAP@R from neighbour lists; and the test-time span.

Shape letters: N rows, B rows of a block, K neighbours, E embedding width, P directions kept.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

CUTOFF = 1e-10
"""Eigenvalues of the embedding's covariance up to this share of the largest are rounding of float32 outputs."""


def recall_hits(hits: NDArray[np.bool_], cuts: tuple[int, ...]) -> NDArray[np.int64]:
    """Return for each cut-off the number of rows with a neighbour of their class among so many.

    Args:
        hits: (B, K) whether each neighbour, nearest first, is of the row's class.
        cuts: values of K; one beyond the list counts the whole list.
    """
    return np.array([hits[:, :cut].any(axis=1).sum() for cut in cuts], dtype=np.int64)


def average_precision_at_r(hits: NDArray[np.bool_], n_relevant: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return each row's average precision over its first R neighbours, R the number of other rows of its class.

    AP@R = 1/R sum over i up to R of precision(i) where neighbour i is relevant, 0 where it is not.

    Args:
        hits: (B, K) whether each neighbour, nearest first, is of the row's class, K at least the largest R.
        n_relevant: (B,) R of each row, at least 1.

    Reference: Musgrave, Belongie, Lim, A metric learning reality check, ECCV 2020.
    """
    places = np.arange(1, hits.shape[1] + 1)
    counted = hits & (places <= n_relevant[:, None])
    precision = np.cumsum(counted, axis=1) / places
    averages: NDArray[np.float64] = (precision * counted).sum(axis=1) / n_relevant
    return averages


def span_basis(covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return T (E, P) such that centred rows times T are their left singular vectors, up to one common factor.

    With the thin SVD of the centred embedding F = U S V', T is V S^-1 on the directions that are not rounding, so
    that F T = U: all of the span counts alike. Rows are then scaled to length 1.

    Args:
        covariance: (E, E) of the centred rows, summed or averaged.

    Reference: Law, Urtasun, Zemel, Deep Spectral Clustering Learning, ICML 2017, test time.
    """
    values, vectors = np.linalg.eigh(covariance)
    kept = values > CUTOFF * max(values[-1], np.finfo(np.float64).tiny)
    basis: NDArray[np.float64] = vectors[:, kept] / np.sqrt(values[kept])
    return basis

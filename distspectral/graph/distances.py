"""Cosine and inner product as Euclidean distance: rows of length one, or one more coordinate that levels lengths.

Shape letters: N rows, D features, B rows asked for.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from distspectral.graph.config import Metric
from distspectral.storage.rows.vectors import Vectors

BLOCK_BYTES = 1 << 26


class UnitVectors:
    """Rows scaled to length one, so that |a - b|^2 = 2 (1 - cos); zero rows stay zero: far from all but each other."""

    def __init__(self, vectors: Vectors) -> None:
        self._vectors = vectors
        self.n_rows, self.dim = vectors.n_rows, vectors.dim
        self.mean, self.scale = np.zeros(vectors.dim), 1.0

    def gather(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return rows by number."""
        return _unit(self._vectors.gather(rows))

    def block(self, start: int, stop: int) -> NDArray[np.float32]:
        """Return consecutive rows."""
        return _unit(self._vectors.block(start, stop))


class LevelVectors:
    """Rows with one more coordinate, sqrt(M^2 - |b|^2) with M the largest length.

    With it zero for the query, |q - b|^2 = |q|^2 + M^2 - 2 q.b: the nearest has the largest inner product.
    Reference: Bachrach et al., Speeding up the Xbox recommender system, RecSys 2014.
    """

    def __init__(self, vectors: Vectors) -> None:
        self._vectors = vectors
        self.n_rows, self.dim = vectors.n_rows, vectors.dim + 1
        self._largest = _largest_squared(vectors)
        self.mean, self.scale = np.zeros(self.dim), 1.0

    def gather(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return rows by number, as neighbours."""
        return self._level(self._vectors.gather(rows))

    def block(self, start: int, stop: int) -> NDArray[np.float32]:
        """Return consecutive rows, as neighbours."""
        return self._level(self._vectors.block(start, stop))

    def queries(self, start: int, stop: int) -> NDArray[np.float32]:
        """Return consecutive rows, as queries."""
        block = self._vectors.block(start, stop)
        return np.pad(block, ((0, 0), (0, 1)))

    def _level(self, block: NDArray[np.float32]) -> NDArray[np.float32]:
        squared = np.square(block, dtype=np.float64).sum(axis=1)
        height = np.sqrt(np.maximum(self._largest - squared, 0)).astype(np.float32)
        return np.hstack([block, height[:, None]])


def as_queries(vectors: Vectors, start: int, stop: int) -> NDArray[np.float32]:
    """Return consecutive rows as they ask, which for the inner product is not how they are found."""
    return vectors.queries(start, stop) if isinstance(vectors, LevelVectors) else vectors.block(start, stop)


def under_metric(vectors: Vectors, metric: Metric) -> Vectors:
    """Return the vectors whose Euclidean distances order rows as the metric does."""
    if metric == "l2":
        return vectors
    return UnitVectors(vectors) if metric == "cosine" else LevelVectors(vectors)


def _unit(block: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.sqrt(np.square(block, dtype=np.float64).sum(axis=1, keepdims=True))
    unit: NDArray[np.float32] = (block / np.where(lengths > 0, lengths, 1)).astype(np.float32)
    return unit


def _largest_squared(vectors: Vectors) -> float:
    step = max(1, BLOCK_BYTES // (8 * vectors.dim))
    starts = range(0, vectors.n_rows, step)
    blocks = (vectors.block(start, min(start + step, vectors.n_rows)) for start in starts)
    return max(float(np.square(block, dtype=np.float64).sum(axis=1).max()) for block in blocks)

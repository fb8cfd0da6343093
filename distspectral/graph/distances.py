"""Cosines and inner product as Euclidean distance: rows of length one, or one more coordinate that levels lengths.

Shape letters: N rows, D features, B rows asked for.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from distspectral.graph.config import Metric
from distspectral.storage.rows.vectors import FleetingVectors, MappedVectors, Vectors

BLOCK_BYTES = 1 << 26
ROUNDING = float(np.finfo(np.float32).eps)
"""Length of a row beside the origin's, below which float32 cannot tell it from a row that lies there."""


class UnitVectors:
    """Rows scaled to length one, so that |a - b|^2 = 2 (1 - cos); zero rows stay zero: far from all but each other.

    Rows no longer than :data:`ROUNDING` of the origin are zero rows.

    Args:
        vectors: (N, D).
        origin: (D,) float64 that is added to them first. What was subtracted gives the angles of the rows before, and
            their mean, negative, those around it.
    """

    def __init__(self, vectors: Vectors, origin: NDArray[np.float64] | None = None) -> None:
        self._vectors, self._origin = vectors, origin
        self.n_rows, self.dim = vectors.n_rows, vectors.dim
        self.mean, self.scale = np.zeros(vectors.dim), 1.0

    def gather(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return rows by number."""
        return self._unit(self._vectors.gather(rows))

    def block(self, start: int, stop: int) -> NDArray[np.float32]:
        """Return consecutive rows."""
        return self._unit(self._vectors.block(start, stop))

    def _unit(self, block: NDArray[np.float32]) -> NDArray[np.float32]:
        moved = _restored(block, self._origin)
        lengths = np.sqrt(np.square(moved, dtype=np.float64).sum(axis=1, keepdims=True))
        least = 0.0 if self._origin is None else ROUNDING * float(np.linalg.norm(self._origin))
        lengths[lengths <= least] = np.inf
        unit: NDArray[np.float32] = (moved / lengths).astype(np.float32)
        return unit


class LevelVectors:
    """Rows with one more coordinate, sqrt(M^2 - |b|^2) with M the largest length.

    With it zero for the query, |q - b|^2 = |q|^2 + M^2 - 2 q.b: the nearest has the largest inner product.
    Reference: Bachrach et al., Speeding up the Xbox recommender system, RecSys 2014.

    Args:
        vectors: (N, D).
        origin: (D,) float64 that was subtracted from them, which products do without.
    """

    def __init__(self, vectors: Vectors, origin: NDArray[np.float64] | None = None) -> None:
        self._vectors, self._origin = vectors, origin
        self.n_rows, self.dim = vectors.n_rows, vectors.dim + 1
        self._largest = self._largest_squared()
        self.mean, self.scale = np.zeros(self.dim), 1.0

    def gather(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return rows by number, as neighbours."""
        return self._level(_restored(self._vectors.gather(rows), self._origin))

    def block(self, start: int, stop: int) -> NDArray[np.float32]:
        """Return consecutive rows, as neighbours."""
        return self._level(_restored(self._vectors.block(start, stop), self._origin))

    def queries(self, start: int, stop: int) -> NDArray[np.float32]:
        """Return consecutive rows, as queries."""
        return self._asking(self._vectors.block(start, stop))

    def gather_queries(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return rows by number, as queries."""
        return self._asking(self._vectors.gather(rows))

    def _asking(self, block: NDArray[np.float32]) -> NDArray[np.float32]:
        rows = _restored(block, self._origin).astype(np.float32, copy=False)
        return np.pad(rows, ((0, 0), (0, 1)))

    def _level(self, block: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        squared = np.square(block, dtype=np.float64).sum(axis=1)
        height = np.sqrt(np.maximum(self._largest - squared, 0)).astype(np.float32)
        return np.hstack([block.astype(np.float32, copy=False), height[:, None]])

    def _largest_squared(self) -> float:
        step = max(1, BLOCK_BYTES // (8 * self._vectors.dim))
        starts = range(0, self.n_rows, step)
        blocks = (self._vectors.block(start, min(start + step, self.n_rows)) for start in starts)
        squares = (np.square(_restored(block, self._origin), dtype=np.float64).sum(axis=1) for block in blocks)
        return max(float(found.max()) for found in squares)


def as_queries(vectors: Vectors, start: int, stop: int) -> NDArray[np.float32]:
    """Return consecutive rows as they ask, which for the inner product is not how they are found."""
    return vectors.queries(start, stop) if isinstance(vectors, LevelVectors) else vectors.block(start, stop)


def gathered_queries(vectors: Vectors, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return rows by number as they ask."""
    return vectors.gather_queries(rows) if isinstance(vectors, LevelVectors) else vectors.gather(rows)


def under_metric(vectors: Vectors, metric: Metric) -> Vectors:
    """Return the vectors whose Euclidean distances order rows as the metric does, which is not ``auto``."""
    assert metric != "auto", "the recipe has decided; of a config, stated_metric"
    if metric == "l2":
        return vectors
    origin = vectors.origin if isinstance(vectors, MappedVectors | FleetingVectors) else None
    if metric == "inner_product":
        return LevelVectors(vectors, origin)
    return UnitVectors(vectors, origin if metric == "cosine" else -vectors.mean)


def _restored(block: NDArray[np.float32], origin: NDArray[np.float64] | None) -> NDArray[np.floating[Any]]:
    return block if origin is None else block + origin

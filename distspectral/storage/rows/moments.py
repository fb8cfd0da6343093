"""Mean and variance of more rows than fit: each part's moments, merged by Chan's formula in float64.

Float64 adds two million equal float32 values without rounding, so equal rows give a variance of exactly zero.
Reference: Chan, Golub, LeVeque, "Updating formulae and a pairwise algorithm", 1979.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distspectral.storage.artifact.manifest import Shard

ROUNDING = 1e-13
"""Spread of equal rows relative to their mean, at most: sums in float64 of float32 numbers, which differ by 6e-8."""

COPY_BYTES = 16 << 20
"""Most bytes of float64 deviations held at once unless the caller says otherwise."""


@dataclasses.dataclass(frozen=True)
class Moments:
    """Moments of some rows.

    Attributes:
        n_rows: how many rows.
        mean: (D,) float64.
        squared_deviations: sum over rows and features of (x - mean)^2.
    """

    n_rows: int
    mean: NDArray[np.float64]
    squared_deviations: float

    @classmethod
    def of(cls, rows: NDArray[Any], copy_bytes: int = COPY_BYTES) -> Moments:
        """Return the moments of (B, D) float16 or float32 rows, B at least 1; copies ``copy_bytes`` at a time."""
        step = max(1, copy_bytes // (8 * rows.shape[1]))
        parts = (cls._of_part(rows[start : start + step]) for start in range(0, len(rows), step))
        return functools.reduce(cls.merge, parts)

    @classmethod
    def _of_part(cls, rows: NDArray[Any]) -> Moments:
        mean = rows.mean(axis=0, dtype=np.float64)
        deviations = rows - mean
        return cls(len(rows), mean, float(np.vdot(deviations, deviations)))

    def merge(self, other: Moments) -> Moments:
        """Return the moments of both sets of rows together."""
        n_rows = self.n_rows + other.n_rows
        delta = other.mean - self.mean
        between = float(delta @ delta) * self.n_rows * other.n_rows / n_rows
        return Moments(
            n_rows,
            self.mean + delta * (other.n_rows / n_rows),
            self.squared_deviations + other.squared_deviations + between,
        )

    def details(self) -> dict[str, Any]:
        """Return them as a shard's receipt keeps them, its number of rows aside."""
        return {"mean": self.mean.tolist(), "squared_deviations": self.squared_deviations}

    @classmethod
    def of_shards(cls, shards: Iterable[Shard]) -> Moments:
        """Return the moments of all rows of shards whose receipts have :meth:`details`; those without rows have none.

        Args:
            shards: in row order, at least one with rows.
        """
        parts = (
            cls(shard.n_rows, np.asarray(shard.details["mean"], np.float64), shard.details["squared_deviations"])
            for shard in shards
            if shard.n_rows
        )
        return functools.reduce(cls.merge, parts)

    @property
    def variance(self) -> float:
        """Mean over features of the variance over rows."""
        return self.squared_deviations / (self.n_rows * len(self.mean))


def is_constant(mean: NDArray[np.float64], scale: float | NDArray[np.float64]) -> bool:
    """Whether rows do not differ but for the rounding of their moments.

    Args:
        mean: (D,) of the rows.
        scale: root of their mean variance.
    """
    return bool(np.max(scale) <= ROUNDING * np.abs(mean).max())

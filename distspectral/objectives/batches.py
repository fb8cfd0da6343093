"""What one step sees: rows, and what the objective needs to know of them.

Shape letters: B rows, D features, M edges, C classes, S negatives, P functions.
"""

from __future__ import annotations

import dataclasses
from typing import Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class Batch(Protocol):
    """This rank's part of a step's global batch."""

    @property
    def vectors(self) -> Tensor:
        """(B, D) rows that pass the network."""

    def to(self, device: torch.device) -> Self:
        """Return the batch on ``device``."""


class _Tensors:
    """A dataclass whose tensors move together."""

    def to(self, device: torch.device) -> Self:
        """Return the batch on ``device``."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}  # type: ignore[arg-type]
        moved = {name: v.to(device, non_blocking=True) for name, v in values.items() if isinstance(v, Tensor)}
        return dataclasses.replace(self, **moved)  # type: ignore[type-var]


@dataclasses.dataclass(frozen=True)
class EdgeBatch(_Tensors):
    """Edges of this rank with the vectors they touch. Weights and masses of all ranks together sum to 1.

    Attributes:
        vectors: (B, D) float32, each row once and the last one maybe again, of no mass.
        heads: (M,) int64, row in ``vectors`` of each edge's first end.
        tails: (M,) int64, row in ``vectors`` of each edge's second end.
        weights: (M,) float64, weight of each edge.
        mass: (B,) float64, measure of each row.
    """

    vectors: Tensor
    heads: Tensor
    tails: Tensor
    weights: Tensor
    mass: Tensor


@dataclasses.dataclass(frozen=True)
class LabeledBatch(_Tensors):
    """Labelled rows of this rank; classes are numbered within the global batch, alike on all ranks.

    Attributes:
        vectors: (B, D) float32.
        classes: (B,) int64 in [0, C).
        n_classes: C, of all ranks together.
    """

    vectors: Tensor
    classes: Tensor
    n_classes: int


@dataclasses.dataclass(frozen=True)
class ReconstructionBatch(_Tensors):
    """Rows of this rank to be rebuilt.

    Attributes:
        vectors: (B, D) float32, possibly corrupted.
        targets: (B, D) float32, the rows as they are.
    """

    vectors: Tensor
    targets: Tensor


@dataclasses.dataclass(frozen=True)
class TeachingBatch(_Tensors):
    """Rows of this rank with the functions that a network is to emit at them.

    Attributes:
        vectors: (B, D) float32.
        targets: (B, P - 1) float32, all functions but the constant one.
        mass: (B,) float32, measure of each row.
    """

    vectors: Tensor
    targets: Tensor
    mass: Tensor

    @classmethod
    def of(cls, vectors: Tensor, columns: Tensor, counts: NDArray[np.int64], n_functions: int) -> Self:
        """Return the batch of rows (B, D), each of which counts so many times (B,).

        Args:
            vectors: (B, D).
            columns: (B, E), what a ``polish`` artifact says of them, the mass first.
            counts: (B,).
            n_functions: P, the constant one included.
        """
        return cls(vectors, columns[:, 1:n_functions], columns[:, 0] * torch.from_numpy(counts))


@dataclasses.dataclass(frozen=True)
class PairBatch(_Tensors):
    """Pairs of rows of this rank, neighbours in the graph and negative ones.

    Attributes:
        vectors: (B, D) float32, each row once and the last one maybe again.
        heads: (M,) int64, row in ``vectors`` of each pair's first end.
        tails: (M,) int64, row in ``vectors`` of each pair's second end.
        is_neighbor: (M,) bool.
    """

    vectors: Tensor
    heads: Tensor
    tails: Tensor
    is_neighbor: Tensor


@dataclasses.dataclass(frozen=True)
class MapBatch(_Tensors):
    """Edges of this rank, and rows that all of them are repelled from. Weights of all ranks together sum to 1.

    Attributes:
        vectors: (B, D) float32, each row once and the last one maybe again.
        heads: (M,) int64, row in ``vectors`` of each edge's first end.
        tails: (M,) int64, row in ``vectors`` of each edge's second end.
        negatives: (S,) int64, row in ``vectors`` of each random row; the same rows on all ranks.
        weights: (M,) float64, weight of each edge.
    """

    vectors: Tensor
    heads: Tensor
    tails: Tensor
    negatives: Tensor
    weights: Tensor

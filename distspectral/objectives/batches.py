"""What one step sees: rows, edges between them, and the measure of each row.

Shape letters: B rows, D features, M edges.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor


@dataclasses.dataclass(frozen=True)
class EdgeBatch:
    """Edges of this rank with the vectors they touch. Weights and masses of all ranks together sum to 1.

    Attributes:
        vectors: (B, D) float32, each row once.
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

    def to(self, device: torch.device) -> EdgeBatch:
        """Return the batch on ``device``."""
        return EdgeBatch(
            *(getattr(self, field.name).to(device, non_blocking=True) for field in dataclasses.fields(self))
        )

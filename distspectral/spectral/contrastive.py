"""The contrastive loss of Siamese networks: neighbours drawn together, random rows pushed a margin apart.

Shape letters: B rows, E features, M pairs.
"""

from __future__ import annotations

import torch
from torch import Tensor

TINY = 1e-12
"""Keeps the square root's derivative finite where a pair has come to lie on one point."""


def squared_pair_distances(features: Tensor, heads: Tensor, tails: Tensor) -> Tensor:
    """Return (M,) squared distances |s_i - s_j|^2 in the dtype of ``features``.

    Args:
        features: (B, E).
        heads: (M,) int64, row of each pair's first end.
        tails: (M,) int64, row of each pair's second end.
    """
    return (features[heads] - features[tails]).square().sum(1)


def contrastive_losses(squared_distances: Tensor, is_neighbor: Tensor, margin: float) -> Tensor:
    """Return (M,) losses: d^2 for neighbours, max(0, margin - d)^2 for the others.

    Args:
        squared_distances: (M,).
        is_neighbor: (M,) bool.
        margin: distance beyond which a pair of strangers costs nothing.

    Reference: Hadsell, Chopra, LeCun, Dimensionality reduction by learning an invariant mapping, CVPR 2006.
    """
    apart = (margin - squared_distances.clamp(min=TINY).sqrt()).clamp(min=0).square()
    return torch.where(is_neighbor, squared_distances, apart)

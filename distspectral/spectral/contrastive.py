"""Contrastive losses: neighbours drawn together, random rows pushed apart, of Siamese networks and of maps.

Shape letters: B rows, E features, M pairs or edges, S strangers.
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


def cauchy_losses(places: Tensor, heads: Tensor, tails: Tensor, strangers: Tensor) -> Tensor:
    """Return (M,) losses: -log of an edge's share of the similarity of its head to its tail and all strangers.

    With q(a, b) = 1 / (1 + |a - b|^2) it is ``-log q(i, j) / (q(i, j) + sum_s q(i, s))``, t-SNE's attraction and, the
    more strangers, its repulsion. A stranger that is the head itself is left out.

    Args:
        places: (B, E), whose dtype the losses have.
        heads: (M,) int64, row of each edge's first end.
        tails: (M,) int64, row of each edge's second end.
        strangers: (S,) int64 rows.

    Reference: Damrich, Boehm, Hamprecht, Kobak, From t-SNE to UMAP with contrastive learning, ICLR 2023 (InfoNC-t-SNE).
    """
    centre, others = places[heads], places[strangers]
    near = 1 + (centre - places[tails]).square().sum(1)
    squared = sum((centre[:, None, e] - others[None, :, e]).square() for e in range(places.shape[1]))
    repelled = ((heads[:, None] != strangers[None]) / (1 + squared)).sum(1)
    return near.log() + (1 / near + repelled).log()

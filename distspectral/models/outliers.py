"""Rows that belong nowhere: too far from their cluster's mean among the rows, or from their leaf among the coordinates.

Shape letters: B rows, S features that the network sees, C clusters.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

import torch
from torch import Tensor, nn

FARTHEST = torch.finfo(torch.float32).max
"""A reach that no row is beyond; files of states hold finite numbers alone."""


class Outliers(nn.Module):
    """Tells outliers by two distances, each beyond what is usual in the row's cluster.

    Rows that are far from all others meet in the embedding, which knows nothing beyond the data, and then seem near to
    a leaf. Rows between clusters are near to others, and strange in the embedding alone. So both are looked at.

    Args:
        means: (C, S) of each cluster's rows, as the network sees them.
        reach: (C,) distance from that mean beyond which a row is an outlier; :data:`FARTHEST` where nothing is known.
        leaf_reach: (C,) likewise of the distance from a row's leaf, in the clustering coordinates.
    """

    means: Tensor
    reach: Tensor
    leaf_reach: Tensor

    def __init__(self, means: Tensor, reach: Tensor, leaf_reach: Tensor) -> None:
        super().__init__()
        self.register_buffer("means", means)
        self.register_buffer("reach", reach)
        self.register_buffer("leaf_reach", leaf_reach)

    @classmethod
    def none(cls, n_clusters: int, width: int) -> Self:
        """Return what takes no row for an outlier."""
        reaches = (torch.full((n_clusters,), FARTHEST) for _ in range(2))  # two tensors, as programs want them
        return cls(torch.zeros(n_clusters, width), *reaches).eval()

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> Self:
        """Return that whose ``state_dict`` this is."""
        return cls(**state).eval()

    def distances(self, seen: Tensor, cluster: Tensor) -> Tensor:
        """Return the distance (B,) of rows (B, S), dense or a COO tensor, from the mean of their cluster (B,)."""
        if seen.is_sparse:  # |x|^2 - 2 x m + |m|^2, no row made dense
            rows, columns = seen.indices()
            values = seen.values()
            sums = values.square() - 2 * values * self.means[cluster[rows], columns]
            squared = self.means.square().sum(1)[cluster].index_add(0, rows, sums)
            return squared.clamp(min=0).sqrt()
        distances: Tensor = (seen - self.means[cluster]).norm(dim=1)
        return distances

    def excess(self, seen: Tensor, cluster: Tensor, leaf_distance: Tensor) -> Tensor:
        """Return the larger (B,) of both distances over what is the most; above 1 of outliers.

        Args:
            seen: (B, S) rows as the network sees them.
            cluster: (B,) of each.
            leaf_distance: (B,) from their leaf, in the clustering coordinates.
        """
        far = self.distances(seen, cluster) / self.reach[cluster]
        return torch.maximum(far, leaf_distance / self.leaf_reach[cluster])

    def forward(self, seen: Tensor, cluster: Tensor, leaf_distance: Tensor) -> Tensor:
        """Return whether each row is an outlier, (B,) bool; arguments as of :meth:`excess`."""
        return self.excess(seen, cluster, leaf_distance) > 1

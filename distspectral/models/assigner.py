"""Embedded rows to clusters and leaves: the nearest centroid, in scaled spectral coordinates.

Shape letters: B rows, P components, C clusters, M leaves.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn

SMALLEST_VARIANCE = 1e-12
LEAF_ROWS = 4_096
"""Rows whose distances to leaves are computed at a time."""


class Assigner(nn.Module):
    """Nearest centroid in the clustering coordinates; never refitted, so labels are stable.

    Args:
        scale: (P,) factor of each spectral coordinate.
        centroids: (C, P) in the scaled coordinates.
        normalize_rows: scale rows to length 1 after scaling coordinates.
        variance: of a row around its centroid, per coordinate, which :meth:`probabilities` need.
        leaves: (M, P) centroids of small clusters inside the clusters; None: each cluster is its only leaf.
        owners: (M,) int64 the cluster that each leaf is inside, every one at least once.
    """

    scale: Tensor
    centroids: Tensor
    leaves: Tensor
    owners: Tensor

    def __init__(
        self,
        scale: Tensor,
        centroids: Tensor,
        normalize_rows: bool,
        variance: float,
        leaves: Tensor | None = None,
        owners: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.register_buffer("scale", scale)
        self.register_buffer("centroids", centroids)
        self.register_buffer("leaves", centroids if leaves is None else leaves)
        self.register_buffer("owners", torch.arange(len(centroids)) if owners is None else owners)
        self.normalize_rows, self.variance = normalize_rows, variance

    def state(self) -> dict[str, Any]:
        """Return all of it as tensors and plain values."""
        return self.state_dict() | {"normalize_rows": self.normalize_rows, "variance": self.variance}

    def leaf_state(self) -> dict[str, Tensor]:
        """Return the leaves alone."""
        return {"leaves": self.leaves, "owners": self.owners}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Return the assigner whose :meth:`state` this is, ready to evaluate."""
        return cls(**state).eval()

    def coordinates(self, embedding: Tensor) -> Tensor:
        """Return the coordinates (B, P) in which clusters live."""
        return clustering_coordinates(embedding, self.scale, self.normalize_rows)

    def squared_distances(self, embedding: Tensor) -> Tensor:
        """Return the squared distance (B, C) of embedded rows (B, P) to every centroid."""
        return squared_distances(self.coordinates(embedding), self.centroids)

    def probabilities(self, squared_distances: Tensor) -> Tensor:
        """Return the probability (B, C) of each cluster, exp(-d^2 / (2 variance)) over its sum.

        That is the posterior under Gaussians around the centroids, equally likely and of one variance in all
        directions: the mixture whose limit of small variance is k-means.
        Reference: MacKay, Information Theory, Inference, and Learning Algorithms, 2003, chapter 22 (soft k-means).

        Args:
            squared_distances: (B, C) to the centroids.
        """
        return (squared_distances / (-2 * max(self.variance, SMALLEST_VARIANCE))).softmax(1)

    def margins(self, squared_distances: Tensor) -> Tensor:
        """Return by how much the next centroid is farther than the nearest (B,), infinite where there is one alone.

        Args:
            squared_distances: (B, C) to the centroids.
        """
        if len(self.centroids) == 1:
            return torch.full_like(squared_distances[:, 0], torch.inf)
        nearest, second = squared_distances.topk(2, largest=False).values.sqrt().unbind(1)
        return second - nearest

    def leaf(self, embedding: Tensor, cluster: Tensor) -> Tensor:
        """Return the leaf (B,) int64 of embedded rows (B, P): the nearest of those inside their cluster (B,)."""
        points, found = self.coordinates(embedding), torch.empty_like(cluster)
        if torch.compiler.is_exporting():  # one expression for any number of rows
            apart = self.owners != cluster[:, None]
            return squared_distances(points, self.leaves).masked_fill(apart, torch.inf).argmin(1)
        for one in torch.unique(cluster):
            numbers, rows = (self.owners == one).nonzero()[:, 0], (cluster == one).nonzero()[:, 0]
            for part in rows.split(LEAF_ROWS):
                found[part] = numbers[squared_distances(points[part], self.leaves[numbers]).argmin(1)]
        return found

    def leaf_distances(self, embedding: Tensor, leaf: Tensor) -> Tensor:
        """Return the distance (B,) of embedded rows (B, P) from the centroid of their leaf (B,)."""
        distances: Tensor = (self.coordinates(embedding) - self.leaves[leaf]).norm(dim=1)
        return distances

    def forward(self, embedding: Tensor) -> tuple[Tensor, Tensor]:
        """Return (cluster int64, distance float32), (B,) each, of embedded rows (B, P)."""
        squared, cluster = self.squared_distances(embedding).min(1)
        return cluster, squared.sqrt()


def clustering_coordinates(embedding: Tensor, scale: Tensor, normalize_rows: bool) -> Tensor:
    """Return the embedding (B, P) scaled per coordinate and, if asked, to rows of length 1."""
    scaled = embedding * scale
    return nn.functional.normalize(scaled, dim=1) if normalize_rows else scaled


def squared_distances(points: Tensor, centroids: Tensor) -> Tensor:
    """Return squared Euclidean distances (B, C), never negative."""
    return (points.square().sum(1, keepdim=True) - 2 * points @ centroids.T + centroids.square().sum(1)).clamp(min=0)

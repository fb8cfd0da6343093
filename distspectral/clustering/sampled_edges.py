"""Edges of sampled rows, with both ends embedded: by them clusters are judged before anything is said of all rows.

Shape letters: n sampled rows, m edges, P components, M small clusters.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distspectral.clustering.k_means import nearest_centroids
from distspectral.graph.store import GatheredEdges
from distspectral.models.assigner import Assigner

Embed = Callable[[NDArray[np.int64]], NDArray[np.float32]]
"""Returns the P components (n, P) of rows (n,), ascending."""
CUT_ROWS = 16_384
"""Rows, of all if there are no more, whose edges tell how much of the graph clusters cut and which to merge.

The most micro-clusters have four each, of some fifteen edges; 200, as of ten clusters, have eighty."""


class SampledEdges(NamedTuple):
    """Embedded rows, and the numbers (m,) of two of them and the affinity (m,) by edge."""

    embedding: Tensor
    heads: NDArray[np.int64]
    tails: NDArray[np.int64]
    affinities: NDArray[np.float32]

    def clusters(self, assigner: Assigner) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
        """Return the clusters (m,) of both ends and the affinity (m,) of each edge."""
        return self.nearest(assigner.coordinates(self.embedding), assigner.centroids)

    def nearest(
        self, points: Tensor, centroids: Tensor
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
        """Return the same of the centroids nearest to the rows as ``points``."""
        nearest = nearest_centroids(points.numpy(), centroids.numpy())
        return nearest[self.heads], nearest[self.tails], self.affinities

    def between(self, points: Tensor, centroids: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the affinities (M, M) between the rows nearest to each centroid (M, P), counted from both ends."""
        return self.between_groups(nearest_centroids(points.numpy(), centroids), len(centroids))

    def between_groups(self, groups: NDArray[np.int64], n_groups: int) -> NDArray[np.float64]:
        """Return the same between groups of rows, given the group (r,) of each."""
        pairs = groups[self.heads] * n_groups + groups[self.tails]
        between = np.bincount(pairs, self.affinities, n_groups**2).astype(np.float64, copy=False)
        between = between.reshape(n_groups, n_groups)
        return between + between.T


def sampled_edges(
    embed: Embed, graph: GatheredEdges, rows: NDArray[np.int64], anchors: NDArray[np.int64]
) -> tuple[SampledEdges, Tensor]:
    """Return the edges of anchors, and the embedding (n, P) of sampled rows.

    Args:
        embed: see :data:`Embed`.
        graph: of all rows.
        rows: (n,) ascending.
        anchors: some of them, ascending.
    """
    neighbors, affinities = graph.gather(anchors)
    ends = np.union1d(rows, neighbors)
    embedding = torch.from_numpy(embed(ends))
    heads = np.repeat(np.searchsorted(ends, anchors), neighbors.shape[1])
    edges = SampledEdges(embedding, heads, np.searchsorted(ends, neighbors.ravel()), affinities.ravel())
    return edges, embedding[np.searchsorted(ends, rows)]


def some_of(rows: NDArray[np.int64], n_rows: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """Return so many of the rows (n,), ascending; all where there are no more."""
    return rows if len(rows) <= n_rows else np.sort(generator.choice(rows, n_rows, replace=False))

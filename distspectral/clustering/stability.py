"""How stable each node of a tree is: small clusters fitted to half of the rows, merged anew, and matched with it.

Shape letters: n sampled rows, P components, M leaves.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from distspectral.clustering.config import MICRO_CLUSTERS, MOST_MICRO_CLUSTERS
from distspectral.clustering.k_means import nearest_centroids
from distspectral.clustering.micro_clusters import ROWS_PER_MICRO_CLUSTER, leaf_centroids
from distspectral.clustering.sampled_edges import Embed, sampled_edges, some_of
from distspectral.graph.store import GatheredEdges
from distspectral.models.assigner import Assigner
from distspectral.spectral.stability import best_matches
from distspectral.spectral.tree import Tree, grown

HALVES = 5
"""Halves of the sample to which small clusters are fitted."""
ROWS = 20_000
"""Rows that are halved, of all if there are no more."""
ANCHORS = 4_096
"""Rows of them whose edges are read."""
FEWEST = 200
"""Small clusters of a half, where the rows allow them and there are not many clusters."""


def stability(
    tree: Tree, assigner: Assigner, embed: Embed, graph: GatheredEdges, rows: NDArray[np.int64], seed: int
) -> NDArray[np.float64]:
    """Return how well each node (2M - 1,) of a tree is found again in half of the rows, from 0 to 1.

    That is the mean Jaccard index with the best of all nodes of the trees that are grown from halves, by the rows of
    the half. Below .5 a node is dissolved, above .75 it is a stable pattern. It is nan where a node is smaller than the
    small clusters of the halves, or no sampled row is in it.

    Args:
        tree: of M leaves.
        assigner: with these leaves.
        embed: the embedding of rows.
        graph: of all rows.
        rows: (n,) sampled, ascending.
        seed: of halves and fits.

    Reference: Hennig, Cluster-wise assessment of cluster stability, 2007.
    """
    generator = np.random.default_rng([seed, HALVES])
    rows = some_of(rows, ROWS, generator)
    edges, embedding = sampled_edges(embed, graph, rows, some_of(rows, ANCHORS, generator))
    points, own = assigner.coordinates(edges.embedding), assigner.coordinates(embedding).numpy()
    cluster, _ = assigner(embedding)
    leaves = assigner.leaf(embedding, cluster).numpy()
    wished = min(max(FEWEST, MICRO_CLUSTERS * tree.n_clusters), MOST_MICRO_CLUSTERS)
    n_small = max(1, min(wished, len(rows) // 2 // ROWS_PER_MICRO_CLUSTER))
    found = []
    for trial in range(HALVES):
        half = np.sort(generator.choice(len(rows), (len(rows) + 1) // 2, replace=False))
        labels, mean = np.zeros(len(half), np.int64), own[half].mean(0, keepdims=True)
        fit, _ = leaf_centroids(own[half], labels, mean, n_small, seed + trial)
        members = nearest_centroids(own[half], fit)
        counts = np.bincount(members, minlength=len(fit))
        other = grown(edges.between(points, fit), counts, np.zeros(len(fit), np.int64))
        found.append(best_matches(tree.children, leaves[half], other.children, members))
    mean_found = np.mean(found, axis=0)
    return np.where(tree.rows < tree.rows[-1] / n_small, np.nan, mean_found)

"""Small clusters: merged into clusters by modularity, or kept inside them as the leaves of a tree.

Shape letters: n sampled rows, P components (the constant one included), C clusters, M micro-clusters or leaves.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from distspectral.clustering.config import MICRO_CLUSTERS, MOST_MICRO_CLUSTERS, ROWS_PER_LEAF
from distspectral.clustering.k_means import Clusters, k_means_run, means_of_groups, nearest_centroids, parts_of_points
from distspectral.spectral.tree import merged_into

FEWEST_MICRO_CLUSTERS = 4
"""For each cluster: with fewer nothing is left to choose between."""
ROWS_PER_MICRO_CLUSTER = 5
"""At least, on average."""
MICRO_ITERATIONS = 10
"""Of Lloyd's: micro-clusters need to be small, not optimal."""


class MicroClusters(NamedTuple):
    """Small clusters to be merged, each inside one part of the graph.

    Attributes:
        centroids: (M, P) float32.
        labels: (n,) int64, the micro-cluster of each point; -1 of those in fragments of the graph.
        groups: (n,) int64, the part of each point.
        fragments: (n,) bool.
    """

    centroids: NDArray[np.float32]
    labels: NDArray[np.int64]
    groups: NDArray[np.int64]
    fragments: NDArray[np.bool_]


def micro_clusters(
    points: NDArray[np.float32], n_clusters: int, seed: int, parts: NDArray[np.integer[Any]] | None = None
) -> MicroClusters | None:
    """Return small clusters to be merged; None of one cluster, of more parts than clusters, and of too few rows.

    Args:
        points: (n, P) sample in the clustering coordinates.
        n_clusters: C.
        seed: of the k-means run that finds them.
        parts: (n,) as :func:`distspectral.clustering.k_means.fit_centroids` takes them.
    """
    groups, fragments = parts_of_points(parts, len(points), n_clusters)
    rows = np.flatnonzero(~fragments)
    n_micro = min(MICRO_CLUSTERS * n_clusters, len(rows) // ROWS_PER_MICRO_CLUSTER, MOST_MICRO_CLUSTERS)
    if n_clusters == 1 or groups.max() >= n_clusters or n_micro < FEWEST_MICRO_CLUSTERS * n_clusters:
        return None
    run = k_means_run(points[rows], groups[rows], n_micro, MICRO_ITERATIONS, np.random.default_rng(seed), trials=1)
    labels = np.full(len(points), -1)
    labels[rows] = run.labels
    return MicroClusters(run.centroids, labels, groups, fragments)


def merged_clusters(
    points: NDArray[np.float32], micro: MicroClusters, affinities: NDArray[np.float64], n_clusters: int
) -> Clusters | None:
    """Return clusters of micro-clusters merged by modularity: their means, and the nearest of these to each point.

    Micro-clusters without edges tell nothing and are left out. None if too few are left.

    Args:
        points: (n, P) that the micro-clusters are of.
        micro: M of them.
        affinities: (M, M) between them, symmetric.
        n_clusters: C.
    """
    rows = np.flatnonzero((micro.labels >= 0) & (affinities.sum(1) > 0)[micro.labels])
    told, first, numbers = np.unique(micro.labels[rows], return_index=True, return_inverse=True)
    parts = micro.groups[rows[first]]
    if len(told) < n_clusters or len(np.unique(parts)) <= micro.groups.max():
        return None
    merged = merged_into(affinities[np.ix_(told, told)], n_clusters, parts, sharing=0)
    centroids, labels = means_of_groups(points[rows], merged[numbers]), np.empty(len(points), np.int64)
    for part in np.unique(parts):
        own, members = np.unique(merged[parts == part]), np.flatnonzero(micro.groups == part)
        labels[members] = own[nearest_centroids(points[members], centroids[own])]
    return Clusters(centroids, labels, micro.fragments, int(micro.groups.max()) + 1)


SMALL_LEAF = 0.2
"""Share of an average leaf's points below which a leaf is none: its points go to the next nearest.

Such specks are rows that lie nearest to one cluster and whose edges lead to another, so they are merged last. On MNIST,
a dozen of one to four rows were clusters of their own in a cut into 25."""


def number_of_leaves(n_rows: int, n_clusters: int, wished: int | Literal["auto"] = "auto") -> int:
    """Return into how many small clusters N rows in C clusters are parted for a tree, if the sample allows as many."""
    if wished != "auto":
        return max(n_clusters, min(wished, MOST_MICRO_CLUSTERS))
    return max(n_clusters, min(max(MICRO_CLUSTERS * n_clusters, n_rows // ROWS_PER_LEAF), MOST_MICRO_CLUSTERS))


def leaf_centroids(
    points: NDArray[np.float32], labels: NDArray[np.int64], centroids: NDArray[np.float32], n_leaves: int, seed: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the centroids (M, P) of small clusters inside the clusters, and the cluster (M,) that each is inside.

    Every cluster has leaves by its share of the points, of :data:`ROWS_PER_MICRO_CLUSTER` points at least; one without
    points has its own centroid.

    Args:
        points: (n, P) sample in the clustering coordinates.
        labels: (n,) the cluster of each.
        centroids: (C, P) of the clusters.
        n_leaves: that are wished for; M is no more, but for clusters whose share is less than one.
        seed: of the k-means run in each cluster.
    """
    found: list[NDArray[np.float32]] = []
    owners: list[int] = []
    for cluster, centroid in enumerate(centroids):
        own = np.ascontiguousarray(points[labels == cluster])
        n_own = max(1, min(n_leaves * len(own) // len(points), len(own) // ROWS_PER_MICRO_CLUSTER))
        if n_own == 1:
            found.append(centroid[None])
        else:
            groups, generator = np.zeros(len(own), np.int64), np.random.default_rng([seed, cluster])
            run = k_means_run(own, groups, n_own, MICRO_ITERATIONS, generator, trials=1)
            counts = np.bincount(run.labels, minlength=n_own)
            found.append(run.centroids[counts >= SMALL_LEAF * len(own) / n_own])
        owners += [cluster] * len(found[-1])
    return np.concatenate(found), np.array(owners)

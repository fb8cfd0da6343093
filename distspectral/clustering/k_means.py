"""k-means on a sample of the clustering coordinates: several runs, of which the best is kept.

Parts of the graph that no edge joins are known before, so no two of them are merged while a third is split.

Shape letters: n sampled rows, P components (the constant one included), C clusters, G parts of the graph.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from distspectral.clustering.config import ClusterConfig
from distspectral.errors import TooManyClustersError
from distspectral.graph.search.faiss_search import fast_products

SEED_ROWS, SEED_ROWS_PER_CLUSTER = 20_000, 20
"""Rows among which the first centroids are sought, at least; greedy seeding in more costs more than all iterations."""
FRAGMENT = 0.03
"""Share of an average cluster's rows: a part of the graph with fewer is a fragment, which is owed no cluster.

Real data have specks of some twenty rows that no edge joins to the rest; were each owed one, they would use up all
clusters. On pen strokes one had .022 of an average cluster and cost .07 ACC. Parts of 20 and of 1,000 rows are told
apart in two clusters; on letters four specks of .04 to .05 cost .02."""
AS_LOW = 1.001
"""Times the lowest inertia: runs that end below it found the same optimum."""
APART = 1e5
"""Times the largest coordinate: how far seeding takes parts of the graph to lie from each other."""


@dataclasses.dataclass(frozen=True)
class Clusters:
    """Centroids of a sample's clusters.

    Attributes:
        centroids: (C, P) float32.
        labels: (n,) int64, the cluster of each point, one of its own part of the graph.
        fragments: (n,) bool, points in fragments of the graph, which are taken for parts of the largest part.
        n_parts: parts of the graph that were kept apart, fragments not counted.
    """

    centroids: NDArray[np.float32]
    labels: NDArray[np.int64]
    fragments: NDArray[np.bool_]
    n_parts: int


@dataclasses.dataclass(frozen=True)
class KMeansFit(Clusters):
    """The k-means run with the lowest inertia, and how far the others agree with it.

    Attributes:
        n_runs: of k-means.
        n_lowest: of them, those whose inertia is the lowest but for a thousandth.
        rand_index: mean adjusted Rand index of the other runs' clusters with these; 1 of a single run.
    """

    n_runs: int
    n_lowest: int
    rand_index: float


def fit_centroids(
    points: NDArray[np.float32],
    n_clusters: int,
    config: ClusterConfig,
    seed: int,
    parts: NDArray[np.integer[Any]] | None = None,
) -> KMeansFit:
    """Return the k-means run with the lowest inertia.

    Greedy k-means++ chooses the first centroids (scikit-learn), Lloyd's iterations move them (FAISS). Plain k-means++
    with as many restarts ended in a bad optimum for a quarter of all seeds on ten classes of digits. Each part has
    centroids of its own, whose number the seeding decides; of more parts than clusters, whole ones are merged.

    Args:
        points: (n, P) sample in the clustering coordinates.
        n_clusters: C.
        config: restarts and iterations.
        seed: of the restarts.
        parts: (n,) the connected component of the graph that each point is in; None where there is but one. Those
            below :data:`FRAGMENT` are taken for parts of the largest.

    Raises:
        TooManyClustersError: more clusters than points.
        MissingDependencyError: faiss is not installed.

    Reference: Arthur and Vassilvitskii, k-means++: The Advantages of Careful Seeding, SODA 2007.
    """
    if n_clusters > len(points):
        raise TooManyClustersError(
            f"cluster.n_clusters = {n_clusters}, but there are only {len(points)} rows; "
            "ask for at most as many as rows",
            parameters=["cluster.n_clusters"],
        )
    groups, fragments = parts_of_points(parts, len(points), n_clusters)
    n_parts = int(groups.max()) + 1
    if n_parts > n_clusters:  # a part whose rows all lie at its mean is merged as a whole
        points, groups = means_of_groups(points, groups)[groups], np.zeros_like(groups)
    generator = np.random.default_rng(seed)
    runs = [k_means_run(points, groups, n_clusters, config.iterations, generator) for _ in range(config.restarts)]
    best = min(runs, key=lambda run: run.inertia)
    return KMeansFit(
        best.centroids,
        best.labels,
        fragments,
        n_parts,
        n_runs=len(runs),
        n_lowest=sum(run.inertia <= AS_LOW * best.inertia for run in runs),
        rand_index=_mean_rand_index(best, runs),
    )


def nearest_centroids(points: NDArray[np.float32], centroids: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return the number (n,) of the centroid nearest to each point.

    Raises:
        MissingDependencyError: faiss is not installed.
    """
    with fast_products() as faiss:
        nearest: NDArray[np.int64] = faiss.knn(points, centroids, 1)[1][:, 0]
    return nearest


class KMeansRun(NamedTuple):
    """Centroids (C, P) float32, the cluster (n,) int64 of each point and the sum of squared distances."""

    centroids: NDArray[np.float32]
    labels: NDArray[np.int64]
    inertia: float


def k_means_run(
    points: NDArray[np.float32],
    groups: NDArray[np.int64],
    n_clusters: int,
    iterations: int,
    generator: np.random.Generator,
    trials: int | None = None,
) -> KMeansRun:
    """Return one run, in which points (n, P) are near to centroids of their own group (n,) alone.

    Each seed is the best of some ``trials``: None: as many as scikit-learn thinks right, 2 + log C.
    """
    seeds = _seeds(points, groups, n_clusters, generator, trials)
    centroids = np.empty((n_clusters, points.shape[1]), np.float32)
    labels, inertia = np.empty(len(points), np.int64), 0.0
    for rows in np.split(np.argsort(groups, kind="stable"), np.cumsum(np.bincount(groups))[:-1]):
        own = np.flatnonzero(groups[seeds] == groups[rows[0]])
        centroids[own], nearest, squared_distances = _lloyd(points[rows], points[seeds[own]], iterations)
        labels[rows] = own[nearest]
        inertia += float(squared_distances.sum(dtype=np.float64))
    return KMeansRun(centroids, labels, inertia)


def _lloyd(
    points: NDArray[np.float32], centroids: NDArray[np.float32], iterations: int
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float32]]:
    """Return the centroids moved, the nearest one of each point and its squared distance."""
    with fast_products() as faiss:
        kmeans = faiss.Kmeans(
            points.shape[1],
            len(centroids),
            niter=iterations,
            min_points_per_centroid=1,
            max_points_per_centroid=len(points),
        )
        kmeans.train(points, init_centroids=centroids)
        squared_distances, nearest = kmeans.assign(points)
    return np.asarray(kmeans.centroids), nearest, squared_distances


def _seeds(
    points: NDArray[np.float32],
    groups: NDArray[np.int64],
    n_clusters: int,
    generator: np.random.Generator,
    trials: int | None,
) -> NDArray[np.int64]:
    """Return C different rows to begin from, at least one of each group, of which there are at most C."""
    from sklearn.cluster import kmeans_plusplus

    most = max(SEED_ROWS, SEED_ROWS_PER_CLUSTER * n_clusters)
    chosen = generator.choice(len(points), min(len(points), most), replace=False)
    rows = np.union1d(chosen, np.unique(groups, return_index=True)[1])
    places = points[rows].astype(np.float64)
    if groups.any():  # places so far apart that a group without a seed is always the next to get one
        corners = generator.normal(size=(groups.max() + 1, 8)) * (APART * max(1.0, np.abs(places).max()))
        places = np.hstack([places, corners[groups[rows]]])
    state = int(generator.integers(2**31))
    _, found = kmeans_plusplus(places, n_clusters, random_state=state, n_local_trials=trials)
    seeds = np.unique(rows[found])  # of fewer different points than clusters some are found twice
    return np.concatenate([seeds, np.setdiff1d(rows, seeds)[: n_clusters - len(seeds)]])


def parts_of_points(
    parts: NDArray[np.integer[Any]] | None, n_rows: int, n_clusters: int
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the number (n,) of each point's part, from 0, and which are in fragments (n,): theirs is the largest's."""
    if parts is None:
        return np.zeros(n_rows, np.int64), np.zeros(n_rows, bool)
    _, members, sizes = np.unique(parts, return_inverse=True, return_counts=True)
    owed = sizes >= FRAGMENT * n_rows / n_clusters
    owed[sizes.argmax()] = True
    numbers = np.cumsum(owed) - 1
    return np.where(owed, numbers, numbers[sizes.argmax()])[members], ~owed[members]


def means_of_groups(points: NDArray[np.float32], groups: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the mean (G, P) of each group's points."""
    sums = np.zeros((groups.max() + 1, points.shape[1]))
    np.add.at(sums, groups, points)
    return (sums / np.bincount(groups)[:, None]).astype(np.float32)


def _mean_rand_index(best: KMeansRun, runs: list[KMeansRun]) -> float:
    """Return the mean adjusted Rand index of the other runs with the best one; 1 where there is no other."""
    from sklearn.metrics import adjusted_rand_score

    others = [float(adjusted_rand_score(best.labels, run.labels)) for run in runs if run is not best]
    return float(np.mean(others)) if others else 1.0

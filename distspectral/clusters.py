"""Clusters in the spectral embedding: coordinates to cluster in, k-means on a sample, and micro-clusters merged.

Parts of the graph that no edge joins are known before, so no two of them are merged while a third is split.

Shape letters: n sampled rows, P components (the constant one included), C clusters, M micro-clusters.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt

from distspectral.errors import TooManyClustersError
from distspectral.frozen import FrozenModel
from distspectral.graph.search.faiss_search import fast_products
from distspectral.spectral.tree import merged_into

SEED_ROWS, SEED_ROWS_PER_CLUSTER = 20_000, 20
"""Rows among which the first centroids are sought, at least; greedy seeding in more costs more than all iterations."""
FRAGMENT = 0.02
"""Share of an average cluster's rows: a part of the graph with fewer is a fragment, which is owed no cluster.

Real data have specks of some twenty rows that no edge joins to the rest; were each owed one, they would use up all
clusters. Parts of 20 and of 1,000 rows are told apart."""
AS_LOW = 1.001
"""Times the lowest inertia: runs that end below it found the same optimum."""
APART = 1e5
"""Times the largest coordinate: how far seeding takes parts of the graph to lie from each other."""

MICRO_CLUSTERS, FEWEST_MICRO_CLUSTERS = 20, 4
"""Micro-clusters for each cluster: as many if the rows allow, and so many at least, for with fewer nothing is left to
choose between."""
ROWS_PER_MICRO_CLUSTER = 5
"""At least, on average."""
MOST_MICRO_CLUSTERS = 4_096
"""Affinities between them are then 128 MiB and merged within two seconds."""
ROWS_PER_LEAF = 50
"""Of the whole data on average, where that makes more leaves than :data:`MICRO_CLUSTERS` for each cluster: leaves of
fewer rows say little of their own, and their number stops at :data:`MOST_MICRO_CLUSTERS`."""
MICRO_ITERATIONS = 10
"""Of Lloyd's: micro-clusters need to be small, not optimal."""


class ClusterConfig(FrozenModel):
    """How rows are grouped (YAML section ``cluster``)."""

    n_clusters: PositiveInt | Literal["auto"] = Field(
        "auto", description="auto = the first of ranked candidates, by what merging micro-clusters costs"
    )
    diffusion_time: Annotated[float, Field(ge=0)] | Literal["auto"] = Field(
        "auto",
        description="t: function e is scaled by (1 - lambda_e)^t; 0 = leave as they are; auto = the t at which the "
        "first function beyond the number of clusters counts half",
    )
    normalize_rows: bool | Literal["auto"] = Field(
        "auto",
        description="scale each row to length 1 first (Ng, Jordan, Weiss); auto = yes, unless the clusters without it "
        "cut far less of the graph and none is a fragment",
    )
    method: Literal["auto", "k_means"] = Field(
        "auto",
        description="auto = k-means, or micro-clusters merged by modularity where these have more of it and cut no "
        "more of the graph; k_means = as in the paper",
    )
    n_leaves: PositiveInt | Literal["auto"] = Field(
        "auto",
        description=f"of the tree; auto = {MICRO_CLUSTERS} for each cluster, or one for {ROWS_PER_LEAF} rows if that "
        f"is more, and {MOST_MICRO_CLUSTERS:,} at most; a number beyond that asks for fine leaves, told by the edges "
        "alone, of the rows trained on",
    )
    sample_rows: PositiveInt = Field(200_000, description="rows that k-means sees; all rows are then assigned")
    restarts: PositiveInt = Field(10, description="k-means runs; the one with the lowest inertia is kept")
    iterations: PositiveInt = Field(50, description="of each k-means run")


def diffusion_time(ritz_values: NDArray[np.float64], n_clusters: int) -> float:
    """Return the time at which the first function beyond the clusters has decayed to a half.

    Graphs differ in how fast they mix, so no one time suits all: MNIST's codes want 50, tf-idf text 10. In units of the
    spectrum they want the same. Values of zero, those of components, are taken for 1e-6.

    Args:
        ritz_values: (P,) ascending, the constant function's zero included.
        n_clusters: C; where all P functions are fewer, the last one counts.
    """
    slowest = ritz_values[min(n_clusters, len(ritz_values) - 1)]
    return float(np.log(2) / -np.log1p(-np.clip(slowest, 1e-6, 1 - 1e-6)))


def diffusion_scale(
    ritz_values: NDArray[np.float64], time: float | Literal["auto"], n_clusters: int
) -> NDArray[np.float32]:
    """Return (1 - lambda)^time for each Ritz value (P,): diffusion-map coordinates.

    ``auto`` is the time of :func:`diffusion_time` for ``n_clusters``.
    Reference: Coifman and Lafon, Diffusion maps, 2006.
    """
    if time == "auto":
        time = diffusion_time(ritz_values, n_clusters)
    return np.clip(1.0 - ritz_values, 1e-6, 1.0).astype(np.float32) ** np.float32(time)


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
    groups, fragments = _groups(parts, len(points), n_clusters)
    n_parts = int(groups.max()) + 1
    if n_parts > n_clusters:  # a part whose rows all lie at its mean is merged as a whole
        points, groups = _means(points, groups)[groups], np.zeros_like(groups)
    generator = np.random.default_rng(seed)
    runs = [_run(points, groups, n_clusters, config.iterations, generator) for _ in range(config.restarts)]
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
        parts: (n,) as :func:`fit_centroids` takes them.
    """
    groups, fragments = _groups(parts, len(points), n_clusters)
    rows = np.flatnonzero(~fragments)
    n_micro = min(MICRO_CLUSTERS * n_clusters, len(rows) // ROWS_PER_MICRO_CLUSTER, MOST_MICRO_CLUSTERS)
    if n_clusters == 1 or groups.max() >= n_clusters or n_micro < FEWEST_MICRO_CLUSTERS * n_clusters:
        return None
    run = _run(points[rows], groups[rows], n_micro, MICRO_ITERATIONS, np.random.default_rng(seed), trials=1)
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
    centroids, labels = _means(points[rows], merged[numbers]), np.empty(len(points), np.int64)
    for part in np.unique(parts):
        own, members = np.unique(merged[parts == part]), np.flatnonzero(micro.groups == part)
        labels[members] = own[nearest_centroids(points[members], centroids[own])]
    return Clusters(centroids, labels, micro.fragments, int(micro.groups.max()) + 1)


def nearest_centroids(points: NDArray[np.float32], centroids: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return the number (n,) of the centroid nearest to each point.

    Raises:
        MissingDependencyError: faiss is not installed.
    """
    with fast_products() as faiss:
        nearest: NDArray[np.int64] = faiss.knn(points, centroids, 1)[1][:, 0]
    return nearest


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
            run = _run(own, groups, n_own, MICRO_ITERATIONS, generator, trials=1)
            counts = np.bincount(run.labels, minlength=n_own)
            found.append(run.centroids[counts >= SMALL_LEAF * len(own) / n_own])
        owners += [cluster] * len(found[-1])
    return np.concatenate(found), np.array(owners)


class _Run(NamedTuple):
    """Centroids (C, P) float32, the cluster (n,) int64 of each point and the sum of squared distances."""

    centroids: NDArray[np.float32]
    labels: NDArray[np.int64]
    inertia: float


def _run(
    points: NDArray[np.float32],
    groups: NDArray[np.int64],
    n_clusters: int,
    iterations: int,
    generator: np.random.Generator,
    trials: int | None = None,
) -> _Run:
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
    return _Run(centroids, labels, inertia)


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


def _groups(
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


def _means(points: NDArray[np.float32], groups: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the mean (G, P) of each group's points."""
    sums = np.zeros((groups.max() + 1, points.shape[1]))
    np.add.at(sums, groups, points)
    return (sums / np.bincount(groups)[:, None]).astype(np.float32)


def _mean_rand_index(best: _Run, runs: list[_Run]) -> float:
    """Return the mean adjusted Rand index of the other runs with the best one; 1 where there is no other."""
    from sklearn.metrics import adjusted_rand_score

    others = [float(adjusted_rand_score(best.labels, run.labels)) for run in runs if run is not best]
    return float(np.mean(others)) if others else 1.0

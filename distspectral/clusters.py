"""Clusters in the spectral embedding: coordinates to cluster in, k-means on a sample, stable assignment.

Shape letters: N rows, B rows of a block, P components (the constant one included), C clusters.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt

from distspectral.errors import TooManyClustersError
from distspectral.frozen import FrozenModel
from distspectral.graph.search.faiss_search import fast_products


class ClusterConfig(FrozenModel):
    """How rows are grouped (YAML section ``cluster``)."""

    n_clusters: PositiveInt | Literal["auto"] = Field("auto", description="auto = at the largest relative Ritz gap")
    diffusion_time: Annotated[float, Field(ge=0)] | Literal["auto"] = Field(
        "auto",
        description="t: function e is scaled by (1 - lambda_e)^t; 0 = leave as they are; auto = the t at which the "
        "first function beyond the number of clusters counts half",
    )
    normalize_rows: bool = Field(True, description="scale each row to length 1 first (Ng, Jordan, Weiss)")
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


def fit_centroids(
    points: NDArray[np.float32], n_clusters: int, config: ClusterConfig, seed: int
) -> NDArray[np.float32]:
    """Return the centroids (C, P) of the k-means run with the lowest inertia.

    Args:
        points: (n, P) sample in the clustering coordinates.
        n_clusters: C.
        config: restarts and iterations.
        seed: of the restarts.

    Raises:
        TooManyClustersError: more clusters than points.
        MissingDependencyError: faiss is not installed.
    """
    if n_clusters > len(points):
        raise TooManyClustersError(
            f"cluster.n_clusters = {n_clusters}, but there are only {len(points)} rows; "
            "ask for at most as many as rows",
            parameters=["cluster.n_clusters"],
        )
    with fast_products() as faiss:
        kmeans = faiss.Kmeans(
            points.shape[1],
            n_clusters,
            niter=config.iterations,
            nredo=config.restarts,
            seed=seed,
            init_method=faiss.ClusteringInitMethod_KMEANS_PLUS_PLUS,
            min_points_per_centroid=1,
            max_points_per_centroid=max(len(points), 1),
        )
        kmeans.train(np.ascontiguousarray(points))
    return np.asarray(kmeans.centroids)

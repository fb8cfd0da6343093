"""Clusters improved by exchanges: one is split in two while two others become one, where that cuts less of the graph.

k-means in spectral coordinates tends to split a large class and to leave two small ones together: its inertia counts
rows, and a large class has more of them. The normalised cut counts clusters alike and tells. It also likes to part
specks, which have few edges to lose, so an exchange must lower it by as much as only a wrong split costs.

Shape letters: n sampled rows, r rows with edges, P components, C clusters.

Reference: Shi and Malik, Normalized Cuts and Image Segmentation, PAMI 2000, for the cut; Ueda, Nakano, Ghahramani and
Hinton, SMEM Algorithm for Mixture Models, Neural Computation 2000, for the moves.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from distspectral.clustering.k_means import FRAGMENT, Clusters, k_means_run, nearest_centroids
from distspectral.clustering.sampled_edges import SampledEdges

LEAST_GAIN = 0.2
"""By which an exchange lowers the normalised cut at least, which is a sum over clusters.

Of 130 graphs of 24 sets, some have lower cuts by .2 to .9 after an exchange: those of blobs of uneven sizes and of
characters of few drawings, which gain up to .2 ACC. Below, exchanges also put two large classes of cells together
(.195), and part specks, views of one object or pieces of a curve (.1)."""
CHEAPEST = 3
"""Splits that are tried with every merger: it is of two clusters, so one of the three cheapest is of another."""
ROWS_PER_CLUSTER = 20
"""With edges, on average; those of fewer tell halves apart by chance."""
ITERATIONS = 20
"""Of Lloyd's, for two halves."""


class Exchange(NamedTuple):
    """A cluster that is split, two others that become one, and by how much that lowers the normalised cut."""

    split: int
    kept: int
    freed: int
    gain: float


class _Halves:
    """Clusters of rows, each parted in two by k-means; a row in half h is in cluster ``h // 2``.

    Args:
        points: (n, P) of the sample.
        labels: (n,) the cluster of each.
        ends: (r, P) rows with edges.
        labels_of_ends: (r,) the cluster of each.
        n_clusters: C.
        seed: of k-means.
    """

    def __init__(
        self,
        points: NDArray[np.float32],
        labels: NDArray[np.int64],
        ends: NDArray[np.float32],
        labels_of_ends: NDArray[np.int64],
        n_clusters: int,
        seed: int,
    ) -> None:
        self._points, self._ends = points, ends
        self._of_points, self.of_ends = 2 * labels, 2 * labels_of_ends
        self._generator = np.random.default_rng(seed)
        for cluster in range(n_clusters):
            self._part(cluster)

    @property
    def labels(self) -> NDArray[np.int64]:
        """(n,) the cluster of each point."""
        return self._of_points // 2

    def make(self, exchange: Exchange) -> None:
        """Split a cluster, whose second half gets the number that the merger frees, and part what is new."""
        split, kept, freed, _ = exchange
        for halves in (self._of_points, self.of_ends):
            second, merged = halves == 2 * split + 1, halves // 2 == freed
            halves[merged], halves[second] = 2 * kept, 2 * freed
        for cluster in (split, kept, freed):
            self._part(cluster)

    def _part(self, cluster: int) -> None:
        own, own_ends = (np.flatnonzero(halves // 2 == cluster) for halves in (self._of_points, self.of_ends))
        self._of_points[own] = self.of_ends[own_ends] = 2 * cluster
        if len(own) < 2:
            return
        run = k_means_run(self._points[own], np.zeros(len(own), np.int64), 2, ITERATIONS, self._generator)
        self._of_points[own] += run.labels
        if len(own_ends):
            self.of_ends[own_ends] += nearest_centroids(self._ends[own_ends], run.centroids)


def exchanged(
    points: NDArray[np.float32], clusters: Clusters, edges: SampledEdges, ends: NDArray[np.float32], seed: int
) -> tuple[NDArray[np.int64], int]:
    """Return the cluster (n,) of each point after exchanges, all by :data:`LEAST_GAIN` or more, and their number.

    Args:
        points: (n, P) sample in the clustering coordinates.
        clusters: C of them.
        edges: between r rows.
        ends: (r, P) these rows.
        seed: of k-means, which parts a cluster in two.
    """
    labels, n_clusters = clusters.labels, len(clusters.centroids)
    has_few = len(np.unique(edges.heads)) < ROWS_PER_CLUSTER * n_clusters
    if has_few or n_clusters < 3 or np.bincount(labels, minlength=n_clusters).min() == 0:
        return labels, 0
    halves = _Halves(points, labels, ends, nearest_centroids(ends, clusters.centroids), n_clusters, seed)
    for n_exchanges in range(n_clusters):  # an end, should cuts rise again as halves are found anew
        best = best_exchange(edges.between_groups(halves.of_ends, 2 * n_clusters))
        if best.gain < LEAST_GAIN:
            return halves.labels, n_exchanges
        halves.make(best)
    return halves.labels, n_clusters


def best_exchange(affinities: NDArray[np.float64]) -> Exchange:
    """Return the exchange after which the normalised cut is lowest; its gain is -inf where there is none.

    Fragments are not split off, and clusters without an edge between them are not merged.

    Args:
        affinities: (2 C, 2 C) between halves, counted from both ends; cluster c has the halves 2 c and 2 c + 1.
    """
    n_clusters = len(affinities) // 2
    of_halves = affinities.sum(1)
    between = affinities.reshape(n_clusters, 2, n_clusters, 2).sum((1, 3))
    volumes, inner = between.sum(1), np.diag(between)
    cuts = _cut(inner, volumes)
    costs = _cut(np.diag(affinities), of_halves).reshape(n_clusters, 2).sum(1) - cuts
    is_fragment = of_halves.reshape(n_clusters, 2).min(1) <= FRAGMENT * volumes.mean()
    costs[is_fragment] = np.inf  # owed no cluster, or nothing at all
    together = _cut(inner[:, None] + inner + 2 * between, volumes[:, None] + volumes)
    gains = np.where(between > 0, cuts[:, None] + cuts - together, -np.inf)
    np.fill_diagonal(gains, -np.inf)
    best = Exchange(0, 0, 0, -np.inf)
    for split in np.argsort(costs, kind="stable")[:CHEAPEST]:
        others = gains.copy()
        others[split], others[:, split] = -np.inf, -np.inf
        kept, freed = divmod(int(others.argmax()), n_clusters)
        if np.isfinite(costs[split]) and others[kept, freed] - costs[split] > best.gain:
            best = Exchange(int(split), kept, freed, float(others[kept, freed] - costs[split]))
    return best


def _cut(inner: NDArray[np.float64], volumes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the share of the affinity that leads out; 1 of what has none, as in the normalised cut."""
    return 1 - np.divide(inner, volumes, out=np.zeros_like(inner), where=volumes > 0)

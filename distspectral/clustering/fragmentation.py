"""Whether learned weights part a graph into clusters, or into one large rest and specks.

A Siamese network that learns which rows are neighbours draws some groups of edges together and loosens others. On
images what it loosens lies between classes. On tf-idf text it cuts off specks, and spectral clusters of the new graph
are one large rest and fragments. Nobody has labels; the sizes of the clusters tell the two apart.

Shape letters: N rows, n sampled rows, K neighbours, C clusters.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import entropy

from distspectral.clustering.candidates import candidates
from distspectral.clustering.config import ClusterConfig
from distspectral.clustering.diffusion import diffusion_scale
from distspectral.clustering.fit import SMALLEST
from distspectral.clustering.k_means import fit_centroids
from distspectral.errors import ConstantDataError
from distspectral.graph.config import AffinityConfig, GraphConfig
from distspectral.graph.knn import searched_graph
from distspectral.graph.search.sampling import sampled
from distspectral.graph.spectrum import exact_spectrum
from distspectral.graph.store import ArrayGraph, Graph
from distspectral.graph.trial import trial_rows
from distspectral.graph.weights import median_squared_distance, reweighted_rows
from distspectral.models.assigner import clustering_coordinates
from distspectral.objectives.spectral import default_n_components
from distspectral.spectral.candidates import WEAK
from distspectral.spectral.diagnostics import suggested_n_clusters
from distspectral.storage.rows.joined import subset
from distspectral.storage.rows.vectors import Vectors

TRIAL_ROWS = 10_000
"""Rows of a trial at most."""
CANDIDATES = 3
"""Numbers of clusters that are tried where none is asked for; fewer than there are make any weights look uneven."""
TRIALS = 3
"""Seeds of k-means, whose effective numbers are averaged: one alone moves it by some hundredths."""

FEWEST = 0.98
"""Effective clusters of the learned weights over those of distances, below which the learned weights are dropped.

On pictures, spectra and pen strokes it lies between .98 and 1.03 and learned weights help, by up to .18 ACC. On tf-idf
text it lies between .73 and .97, on cells between .83 and .98, and they harm by up to .10."""


@dataclasses.dataclass(frozen=True)
class Fragmentation:
    """How even clusters are by either weights of the same edges.

    Attributes:
        euclidean: effective number of clusters, exp of the entropy of their sizes, by the distances of the search.
        siamese: likewise, by those of the Siamese network.
        n_rows: n, of the trial.
        euclidean_smallest: rows of the smallest cluster over those of an average one, by the distances of the search.
        siamese_smallest: likewise, by those of the Siamese network.
    """

    euclidean: float
    siamese: float
    n_rows: int
    euclidean_smallest: float = 1.0
    siamese_smallest: float = 1.0

    @property
    def fragments(self) -> bool:
        """Whether the learned weights make the clusters more uneven, or specks of some: then they are not taken."""
        return self.siamese < FEWEST * self.euclidean or self.parts_specks

    @property
    def parts_specks(self) -> bool:
        """Whether there are specks by the learned weights alone.

        The effective number of Reuters' clusters moves by a tenth with the seed of k-means, under either weights. The
        smallest cluster does not: it has .15 of an average one's rows by distances, and .05 by learned weights.
        """
        return self.siamese_smallest < SMALLEST <= self.euclidean_smallest

    @property
    def in_words(self) -> str:
        """What was found and decided, in a sentence."""
        kept = "so the distances of the search weigh the edges" if self.fragments else "so they were taken"
        specks = ", and the smallest has less than a tenth of an average one's rows" if self.parts_specks else ""
        return (
            f"On {self.n_rows:,} rows the clusters by Siamese weights are as even as {self.siamese:.1f} clusters of "
            f"one size{specks}, those by the distances of the search as {self.euclidean:.1f}, {kept}"
        )


def fragmentation(
    rows: Vectors,
    features: Vectors,
    graph: Graph,
    search: GraphConfig,
    affinity: AffinityConfig,
    n_clusters: int | Literal["auto"],
    seed: int,
) -> Fragmentation:
    """Return how even the clusters are under either weights, on the whole graph or, of many rows, on a sample's.

    Args:
        rows: (N, D) that neighbours were searched among.
        features: (N, E) of the Siamese network.
        graph: of the rows, (N, K), weighed by distances.
        search: section ``graph``, for the sample; under the metric of the search, on the CPU.
        affinity: section ``affinity``, likewise.
        n_clusters: C; ``auto``: that of the first candidates by distances under which the learned weights do best.
        seed: of the sample and of k-means.
    """
    if graph.n_rows > (most := trial_rows(rows, search, TRIAL_ROWS)):  # exact eigenvectors of so many take some seconds
        sample = sampled(graph.n_rows, most, seed)
        rows, features = subset(rows, sample), subset(features, sample)
        try:
            graph, _ = searched_graph(rows, search.model_copy(update={"device": "cpu", "block_rows": None}), affinity)
        except ConstantDataError:  # next to all rows are equal
            return Fragmentation(1.0, 1.0, len(sample))
    median = median_squared_distance(graph, features)
    learned = ArrayGraph(*reweighted_rows(graph, features, 0, graph.n_rows, median))
    n_functions = min(default_n_components(n_clusters), graph.n_rows - 1)
    spectra = [exact_spectrum(one, n_functions)[:2] for one in (graph, learned)]
    numbers = _numbers(graph, *spectra[0], seed) if n_clusters == "auto" else [min(n_clusters, graph.n_rows)]
    both = [_evenness(*spectrum, numbers, seed) for spectrum in spectra]
    by_distances, learned_ones = max(zip(*both, strict=True), key=lambda pair: pair[1].effective / pair[0].effective)
    return Fragmentation(
        by_distances.effective, learned_ones.effective, graph.n_rows, by_distances.smallest, learned_ones.smallest
    )


def _numbers(graph: Graph, values: NDArray[np.float64], vectors: NDArray[np.float64], seed: int) -> list[int]:
    """Return the first candidates for the number of clusters, one at least and others that stand out."""
    embed = vectors.astype(np.float32).__getitem__
    ranks = candidates(embed, graph, values, ClusterConfig(), seed, np.arange(graph.n_rows))
    stand_out = [one.n_clusters for place, one in enumerate(ranks[:CANDIDATES]) if place == 0 or one.score > WEAK]
    return stand_out or [suggested_n_clusters(values)]


class _Evenness(NamedTuple):
    """Means over seeds of k-means: exp of the entropy of the sizes, and the least size over the mean size."""

    effective: float
    smallest: float


def _evenness(
    values: NDArray[np.float64], vectors: NDArray[np.float64], numbers: Sequence[int], seed: int
) -> list[_Evenness]:
    """Return how even C clusters of rows of length 1 are, for each C.

    Functions of specks count here, unlike in a run's clusters: specks are what is looked for.
    """
    found = []
    for n_clusters in numbers:
        scale = torch.from_numpy(diffusion_scale(values, "auto", n_clusters))
        points = clustering_coordinates(torch.from_numpy(vectors.astype(np.float32)), scale, normalize_rows=True)
        fits = [fit_centroids(points.numpy(), n_clusters, ClusterConfig(), seed + trial) for trial in range(TRIALS)]
        sizes = [np.bincount(fit.labels) for fit in fits]
        effective, smallest = ([measure(one) for one in sizes] for measure in (_effective, _smallest))
        found.append(_Evenness(float(np.mean(effective)), float(np.mean(smallest))))
    return found


def _effective(sizes: NDArray[np.int64]) -> float:
    return float(np.exp(entropy(sizes)))


def _smallest(sizes: NDArray[np.int64]) -> float:
    return float(sizes.min() / sizes.mean())

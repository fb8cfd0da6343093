"""How many clusters there are, by the affinities between many small ones: numbers ranked, each with its evidence.

Shape letters: M small clusters, C clusters.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from distspectral.spectral.stability import best_matches
from distspectral.spectral.tree import Matrix, dense, grown, mergers

MOST = 60
"""Largest number that is considered."""
FEWEST_MEMBERS = 4
"""Small clusters for each cluster, at least."""
BY_GAP = 0.1
"""Weight of the relative gap of the spectrum beside the rise in cost."""
WEAK = 0.18
"""Score below which no number stands out: one Gaussian gives .07 to .17, uniform noise .06 to .12, classes of images,
cells and pen strokes nearly always more, up to .5."""


UNSTABLE_NUMBER = 0.85
"""Stability below which no number stands out either: one Gaussian in ten dimensions gives .5 at most, Gaussians and
uniform noise in two .75, overlapping titles .77 to .84, classes of images and pen strokes .91 to .99."""


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A number of clusters and what speaks for it.

    Attributes:
        n_clusters: C.
        score: ``rise`` and a tenth of ``gap``.
        rise: by how much a merger costs more from C clusters on than all before; see :func:`merging_costs`.
        gap: (lambda_{C+1} - lambda_C) / lambda_{C+1} of the Laplacian, 0 where that is not known.
        stability: of the C clusters of each fit, how well they are found again in the trees of the others, on average;
            told, not counted, for it ranks nothing that the score does not.
    """

    n_clusters: int
    score: float
    rise: float
    gap: float
    stability: float

    @property
    def stands_out(self) -> bool:
        """Whether the number is more than noise would give."""
        return self.score >= WEAK and self.stability >= UNSTABLE_NUMBER


def merging_costs(affinities: Matrix, most: int) -> NDArray[np.float64]:
    """Return what the dearest merger so far cost, (most + 2,): at C, once there are fewer than C clusters.

    A merger of two with the affinity a, relative to chance, costs 1 - a, at least 0. It costs less if the smaller one
    has less than the average of C clusters, so that specks count little.

    Args:
        affinities: (M, M) as of :func:`distspectral.spectral.tree.mergers`.
        most: at most M - 1.
    """
    between = dense(affinities)
    degrees = between.sum(1) / between.sum()
    pairs, affinity = mergers(between, [np.zeros(len(between), np.int64)], 1)
    costs = np.zeros(most + 2)
    for n_clusters, (kept, gone), found in zip(range(len(between), 1, -1), pairs, affinity, strict=True):
        if n_clusters <= most + 1:
            size = min(degrees[kept], degrees[gone]) * n_clusters
            costs[n_clusters] = max(0.0, 1 - found) * min(1.0, size)
        degrees[kept] += degrees[gone]
    return np.maximum.accumulate(costs[::-1])[::-1]


def stabilities(affinities: Sequence[Matrix], members: Sequence[NDArray[np.int64]], most: int) -> NDArray[np.float64]:
    """Return by number of clusters (most + 1,) how well clusters of a fit are found again in others, 1 of one fit.

    That is the mean over fits and clusters of :func:`distspectral.spectral.stability.best_matches` with other fits.

    Args:
        affinities: as of :func:`ranked`.
        members: likewise.
        most: the largest number.
    """
    trees = [
        grown(one, np.bincount(own, minlength=one.shape[0]), np.zeros(one.shape[0], np.int64))
        for one, own in zip(affinities, members, strict=True)
    ]
    found = np.ones((len(trees), most + 1))
    for place, (tree, own) in enumerate(zip(trees, members, strict=True)):
        others = [
            best_matches(tree.children, own, other.children, theirs)
            for at, (other, theirs) in enumerate(zip(trees, members, strict=True))
            if at != place
        ]
        if others:
            matches = np.mean(others, axis=0)
            for n_clusters in range(1, most + 1):
                found[place, n_clusters] = np.nanmean(matches[tree.nodes(n_clusters)])
    stability: NDArray[np.float64] = found.mean(0)
    return stability


def ranked(
    affinities: Sequence[Matrix], members: Sequence[NDArray[np.int64]], eigenvalues: NDArray[np.float64]
) -> list[Candidate]:
    """Return all numbers from 2 on, that of the highest score first, the smaller of equals.

    Args:
        affinities: between small clusters, of one fit or several, over whose rises is averaged.
        members: of each fit the small cluster (n,) of the same rows.
        eigenvalues: (P,) of the Laplacian, ascending, the constant function's zero included.
    """
    most = min(MOST, min(one.shape[0] for one in affinities) // FEWEST_MEMBERS)
    costs = np.mean([merging_costs(one, most) for one in affinities], axis=0)
    values = np.maximum(eigenvalues, np.finfo(np.float32).eps ** 2)
    stability = stabilities(affinities, members, most)
    found = []
    for n_clusters in range(2, most + 1):
        rise = float(costs[n_clusters] - costs[n_clusters + 1])
        gap = 0.0
        if n_clusters < len(values):
            gap = float((values[n_clusters] - values[n_clusters - 1]) / values[n_clusters])
        found.append(Candidate(n_clusters, rise + BY_GAP * gap, rise, gap, float(stability[n_clusters])))
    return sorted(found, key=lambda one: (-one.score, one.n_clusters))

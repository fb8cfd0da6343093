"""How many clusters there are, by the affinities between many small ones: numbers ranked, each with its evidence.

Shape letters: M small clusters, C clusters.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from distspectral.spectral.tree import Matrix, dense, mergers

MOST = 60
"""Largest number that is considered."""
FEWEST_MEMBERS = 4
"""Small clusters for each cluster, at least."""
BY_GAP = 0.1
"""Weight of the relative gap of the spectrum beside the rise in cost."""
WEAK = 0.18
"""Score below which no number stands out: one Gaussian gives .07 to .17, uniform noise .06 to .12, classes of images,
cells and pen strokes nearly always more, up to .5."""


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A number of clusters and what speaks for it.

    Attributes:
        n_clusters: C.
        score: ``rise`` and a tenth of ``gap``.
        rise: by how much a merger costs more from C clusters on than all before; see :func:`merging_costs`.
        gap: (lambda_{C+1} - lambda_C) / lambda_{C+1} of the Laplacian, 0 where that is not known.
    """

    n_clusters: int
    score: float
    rise: float
    gap: float


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


def ranked(affinities: Sequence[Matrix], eigenvalues: NDArray[np.float64]) -> list[Candidate]:
    """Return all numbers from 2 on, that of the highest score first, the smaller of equals.

    Args:
        affinities: between small clusters, of one fit or several, over whose rises is averaged.
        eigenvalues: (P,) of the Laplacian, ascending, the constant function's zero included.
    """
    most = min(MOST, min(one.shape[0] for one in affinities) // FEWEST_MEMBERS)
    costs = np.mean([merging_costs(one, most) for one in affinities], axis=0)
    values = np.maximum(eigenvalues, np.finfo(np.float32).eps ** 2)
    found = []
    for n_clusters in range(2, most + 1):
        rise = float(costs[n_clusters] - costs[n_clusters + 1])
        gap = 0.0
        if n_clusters < len(values):
            gap = float((values[n_clusters] - values[n_clusters - 1]) / values[n_clusters])
        found.append(Candidate(n_clusters, rise + BY_GAP * gap, rise, gap))
    return sorted(found, key=lambda one: (-one.score, one.n_clusters))

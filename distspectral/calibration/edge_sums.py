"""Energy and Gram of functions, summed over the edges of a graph's rows: what Rayleigh-Ritz is solved with.

Shape letters: N rows, B rows of a block, K neighbours, E functions, P components kept.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distspectral.graph.store import Graph
from distspectral.spectral.rayleigh import Laplacian, dirichlet_energy, gram, rayleigh_ritz
from distspectral.storage.rows.vectors import Vectors

BLOCK_BYTES = 1 << 21
"""Functions at both ends of the edges that are summed at a time, in float64: they stay in a core's cache. With 45
functions and 15 neighbours these are 364 rows. 8,192 at a time took 1.5 times as long, and 2.5 times beside tasks that
read and write much."""

OnBlock = Callable[[int, Tensor, NDArray[np.int64], Tensor, Tensor], None]
"""Called with the first row of a block, functions at its rows (B, E), neighbours (B, K), affinities (B * K,), and
functions at the neighbours (B * K, E)."""


@dataclasses.dataclass(frozen=True)
class EdgeSums:
    """Sums over the edges of rows.

    Attributes:
        energy: (E, E) float64.
        gram: (E, E) float64, weighted by degree for the random-walk Laplacian, by 1 per row for the unnormalised one.
        affinity: of all these edges.
        n_rows: whose edges they are.
    """

    energy: Tensor
    gram: Tensor
    affinity: float
    n_rows: int

    @classmethod
    def none(cls, n_functions: int) -> EdgeSums:
        """Return the sums over no edge, of E functions."""
        zeros = torch.zeros(n_functions, n_functions, dtype=torch.float64)
        return cls(zeros, zeros, 0.0, 0)

    def __add__(self, other: EdgeSums) -> EdgeSums:
        """Return the sums over the edges of both."""
        return EdgeSums(
            self.energy + other.energy,
            self.gram + other.gram,
            self.affinity + other.affinity,
            self.n_rows + other.n_rows,
        )

    def of_all(self, n_rows: int) -> EdgeSums:
        """Return what the sums over the edges of all N rows are expected to be, where these are a sample of them."""
        times = n_rows / self.n_rows
        return EdgeSums(times * self.energy, times * self.gram, times * self.affinity, n_rows)

    def means(self, laplacian: Laplacian) -> tuple[Tensor, Tensor]:
        """Return energy and Gram (E, E) as expectations.

        Ritz values of the unnormalised Laplacian then come divided by the mean degree, so that both kinds have the same
        scale.
        """
        return self.energy / self.affinity, self.gram / (self.affinity if laplacian == "random_walk" else self.n_rows)

    def ritz_functions(self, laplacian: Laplacian) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the rotation (E, R) of the functions to Ritz functions and all R Ritz values, ascending.

        Rows that are few or equal carry fewer functions than were trained: R is how many are independent over them.

        Raises:
            RankDeficientError: the functions are not finite.
        """
        values, rotation = rayleigh_ritz(*self.means(laplacian))
        return rotation.numpy(), values.clamp(min=0).numpy()


def rows_of_block(n_neighbors: int, n_functions: int) -> int:
    """Return of how many rows the edges are summed at a time."""
    return max(1, BLOCK_BYTES // (8 * (1 + n_neighbors) * n_functions))


def edge_sums(
    features: Vectors, graph: Graph, start: int, stop: int, laplacian: Laplacian, on_block: OnBlock | None = None
) -> EdgeSums:
    """Return the sums over the edges of rows [start, stop).

    Args:
        features: (N, E) the functions.
        graph: N rows.
        start: first row.
        stop: row after the last.
        laplacian: which.
        on_block: sees every block as it passes by.
    """
    n_functions, n_neighbors = features.dim, graph.n_neighbors
    sums = EdgeSums.none(n_functions)
    step = rows_of_block(n_neighbors, n_functions)
    for first in range(start, stop, step):
        last = min(first + step, stop)
        neighbors, affinities = graph.block(first, last)
        weights = torch.from_numpy(np.asarray(affinities, dtype=np.float64)).reshape(-1)
        anchors = torch.tensor(features.block(first, last))
        others = torch.from_numpy(features.gather(np.asarray(neighbors, dtype=np.int64).reshape(-1)))
        sums += block_sums(anchors, others, weights, laplacian)
        if on_block is not None:
            on_block(first, anchors, np.asarray(neighbors, dtype=np.int64), weights, others)
    return sums


def block_sums(anchors: Tensor, others: Tensor, weights: Tensor, laplacian: Laplacian) -> EdgeSums:
    """Return the sums over edges of K neighbours each.

    Args:
        anchors: (B, E) functions at rows.
        others: (B * K, E) functions at their neighbours.
        weights: (B * K,) float64 affinities.
        laplacian: which.
    """
    n_rows, both = len(anchors), torch.cat([anchors, others])
    heads = torch.arange(n_rows).repeat_interleave(len(others) // n_rows)
    energy = dirichlet_energy(both, heads, torch.arange(n_rows, len(both)), weights)
    if laplacian == "random_walk":
        mass = torch.cat([weights.view(n_rows, -1).sum(1), weights]) / 2
        gram_sum = gram(both, mass)
    else:
        gram_sum = gram(anchors, torch.ones(n_rows, dtype=torch.float64))
    return EdgeSums(energy, gram_sum, float(weights.sum()), n_rows)

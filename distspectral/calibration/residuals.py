"""The certificate of trained functions whose graph does not fit into one task: residuals at sampled rows.

Shape letters: N rows, B rows of a block, S sampled rows, K neighbours, E functions trained.
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from distspectral.calibration.edge_sums import EdgeSums
from distspectral.spectral.certificate import Certificate, of_residuals
from distspectral.training.spectral import SpectralSettings

SAMPLE_ROWS = 1 << 14
"""Sampled rows: their residuals are known to some percent, and the edges to them fit into the driver."""


class ResidualSample:
    """Sampled rows with all their edges, those that lead to them included, summed as the graph passes by in blocks.

    Args:
        rows: (S,) their numbers, ascending.
        n_functions: E.

    Attributes:
        values: (S, E) float64 the functions at the rows.
        images: (S, E) sums of affinity times the functions at the other ends, by (W + W')/2.
        degree: (S,) sums of these affinities.
    """

    def __init__(self, rows: NDArray[np.int64], n_functions: int) -> None:
        self.rows = rows
        self.values = np.zeros((len(rows), n_functions))
        self.images = np.zeros((len(rows), n_functions))
        self.degree = np.zeros(len(rows))

    @classmethod
    def drawn(cls, n_rows: int, n_functions: int, seed: int, count: int = SAMPLE_ROWS) -> Self:
        """Return an empty sample of ``count`` rows of N, of all where there are fewer."""
        count = min(n_rows, count)
        chosen = np.random.default_rng(seed).choice(n_rows, count, replace=False, shuffle=False)
        return cls(np.sort(chosen).astype(np.int64), n_functions)

    def add(self, start: int, anchors: Tensor, neighbors: NDArray[np.int64], weights: Tensor, others: Tensor) -> None:
        """Take a block of the graph.

        Args:
            start: its first row.
            anchors: (B, E) functions at its rows.
            neighbors: (B, K).
            weights: (B * K,) float64 affinities.
            others: (B * K, E) functions at the neighbours.
        """
        n_neighbors = neighbors.shape[1]
        here = slice(*np.searchsorted(self.rows, (start, start + len(anchors))))
        local = self.rows[here] - start
        theirs = others.view(-1, n_neighbors, others.shape[1])[local]
        self.values[here] = anchors[local].double().numpy()
        self.leading_out(np.arange(here.start, here.stop), theirs, weights.view(-1, n_neighbors)[local].numpy())
        places = np.searchsorted(self.rows, neighbors.reshape(-1)).clip(max=len(self.rows) - 1)
        hits = np.flatnonzero(self.rows[places] == neighbors.reshape(-1))
        self.leading_in(places[hits], anchors[hits // n_neighbors], weights.numpy()[hits])

    def leading_out(self, places: NDArray[np.int64], others: Tensor, affinities: NDArray[np.float64]) -> None:
        """Take the edges of sampled rows.

        Args:
            places: (B,) of the rows among the sampled ones, none twice.
            others: (B, K, E) functions at their neighbours.
            affinities: (B, K).
        """
        self.images[places] += np.einsum("sk,ske->se", affinities, others.double().numpy()) / 2
        self.degree[places] += affinities.sum(axis=1) / 2

    def leading_in(self, places: NDArray[np.int64], others: Tensor, affinities: NDArray[np.float64]) -> None:
        """Take edges that lead to sampled rows.

        Args:
            places: (M,) of the rows among the sampled ones.
            others: (M, E) functions at the rows that the edges come from.
            affinities: (M,).
        """
        np.add.at(self.images, places, others.double().numpy() * affinities[:, None] / 2)
        np.add.at(self.degree, places, affinities / 2)

    def part(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return the places (any,) that were touched, and their values, images and degree side by side."""
        touched = np.flatnonzero((self.degree > 0) | self.values.any(axis=1))
        return touched, np.hstack([self.values[touched], self.images[touched], self.degree[touched, None]])

    def merge(self, part: tuple[NDArray[np.int64], NDArray[np.float64]]) -> None:
        """Add what another task's sample of the same rows holds."""
        places, sums = part
        n_functions = self.values.shape[1]
        self.values[places] += sums[:, :n_functions]
        self.images[places] += sums[:, n_functions:-1]
        self.degree[places] += sums[:, -1]

    def certificate(self, sums: EdgeSums, settings: SpectralSettings) -> Certificate:
        """Return what the residuals at the rows say of all.

        Args:
            sums: over the edges of all rows.
            settings: those the functions were trained with.
        """
        laplacian = settings.spectral.laplacian
        rotation, values = sums.ritz_functions(laplacian)
        found = self.residuals(values, rotation, sums.affinity, sums.n_rows, laplacian == "random_walk")
        return of_residuals(values, found[0], min(settings.n_components, len(values)), found[1])

    def residuals(
        self, values: NDArray[np.float64], rotation: NDArray[Any], affinity: float, n_rows: int, random_walk: bool
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return |L f - value f| (P,) of the rotated functions, estimated from the rows, and standard errors.

        Args:
            values: (P,) of the Laplacian; of the unnormalised one divided by the mean degree.
            rotation: (E, P) that makes the functions orthonormal under the rows' mass.
            affinity: sum of all.
            n_rows: N.
            random_walk: which Laplacian.
        """
        functions, images = self.values @ rotation, self.images @ rotation
        if random_walk:
            inverse = np.divide(1, self.degree, out=np.zeros_like(self.degree), where=self.degree > 0)
            left, mass = functions - inverse[:, None] * images, self.degree * n_rows / affinity
        else:
            left = (self.degree[:, None] * functions - images) * (n_rows / affinity)
            mass = np.ones(len(functions))
        squares = mass[:, None] * np.square(left - values * functions)
        n_sampled = len(squares)
        rest = 1 - n_sampled / n_rows  # of a sample that is everything nothing is left to chance
        spread = squares.std(axis=0, ddof=min(1, n_sampled - 1)) * np.sqrt(rest / n_sampled)
        residuals = np.sqrt(squares.mean(axis=0))
        return residuals, spread / np.maximum(2 * residuals, np.finfo(float).tiny)

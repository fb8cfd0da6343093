"""Overlapping cells: a row lives in its nearest cell, and also in others whose border is near.

The border between two cells is the plane half way between their centroids. A row goes to its nearest centroid's cell
and to up to ``max_extra`` more whose border is at most ``eps`` times as far as that centroid. Two rows that share a
cell can find each other; overlap is what keeps borders from cutting the graph.

Shape letters: N rows, B rows of a block, C cells, D features, M cells looked at.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from numpy.typing import NDArray

from distspectral.errors import SearchFailedError
from distspectral.graph.search.costs import pair_us, query_us
from distspectral.graph.search.exact import nearest_by_products, squared_distances
from distspectral.graph.search.faiss_search import fast_products
from distspectral.graph.search.lists import Neighbors
from distspectral.graph.search.regions import LISTED, Regions, n_regions

TWO_LEVEL_CELLS = 5000
"""Above it, a row's cells are looked for through regions."""
TWO_STEP_CELLS = 300
"""Above it, k-means runs inside the cells of a coarser k-means."""
ITERATIONS = 10
POINTS_PER_CENTROID = 64
SPLIT_ROUNDS = 6
MARGIN = 2
NO_CELL = -1
EXTRA = (1, 2, 3, 5)
"""Cells beyond the nearest that a row may be in: the choices."""


def fit_centroids(sample: NDArray[np.float32], n_cells: int, seed: int) -> NDArray[np.float32]:
    """Return (C, D) centroids of k-means on a sample (S, D); fewer than asked for where rows are equal."""
    if n_cells >= len(sample):
        return np.unique(sample, axis=0)
    if n_cells > TWO_STEP_CELLS:
        return _in_two_steps(sample, n_cells, seed)
    with fast_products() as faiss:
        kmeans = faiss.Kmeans(
            sample.shape[1],
            n_cells,
            niter=ITERATIONS,
            seed=seed + 1,
            min_points_per_centroid=1,
            max_points_per_centroid=POINTS_PER_CENTROID,
        )
        kmeans.train(np.ascontiguousarray(sample))
    return np.unique(kmeans.centroids, axis=0)


def _in_two_steps(sample: NDArray[np.float32], n_cells: int, seed: int) -> NDArray[np.float32]:
    """Return centroids of k-means inside the cells of a coarser k-means: n_cells^1.5 work, not n_cells^2."""
    coarse = fit_centroids(sample, int(np.sqrt(n_cells)), seed)
    home = Cells(coarse, 0, 0.0).nearest(sample, 1)[0][:, 0]
    parts = []
    for cell in range(len(coarse)):
        members = sample[home == cell]
        if len(members):
            parts.append(fit_centroids(members, max(1, round(n_cells * len(members) / len(sample))), seed))
    return np.concatenate(parts)


def split_large(
    centroids: NDArray[np.float32], sample: NDArray[np.float32], max_share: float, seed: int
) -> NDArray[np.float32]:
    """Return centroids of which none has more than ``max_share`` of the sample in its cell, where rows differ.

    All rows are assigned once. The parts of a cell are made of its rows and divide them among themselves; a few rows of
    neighbouring cells may be nearer to a part, too.
    """
    return _split(centroids, sample, max_share * len(sample), seed, SPLIT_ROUNDS)


def _split(
    centroids: NDArray[np.float32], rows: NDArray[np.float32], most: float, seed: int, rounds: int
) -> NDArray[np.float32]:
    if not rounds:
        return centroids
    home = Cells(centroids, 0, 0.0, fit_regions(centroids, seed)).nearest(rows, 1)[0][:, 0]
    counts = np.bincount(home, minlength=len(centroids))
    members = np.split(np.argsort(home, kind="stable"), np.cumsum(counts)[:-1])
    large = np.flatnonzero((counts > most) & (counts > 1))
    parts = [np.delete(centroids, large, axis=0)]
    for cell in large:
        own = rows[members[cell]]
        fitted = fit_centroids(own, math.ceil(len(own) / most), seed + 1)
        parts.append(_split(fitted, own, most, seed + 1, rounds - 1) if len(fitted) > 1 else fitted)
    return np.concatenate(parts)


@dataclasses.dataclass(frozen=True)
class Cells:
    """Centroids and how far rows spill over; picklable.

    Attributes:
        centroids: (C, D) float32.
        max_extra: cells beyond the nearest that a row may be in.
        eps: how far away their border may be, as a share of the distance to the nearest centroid.
        regions: of :func:`fit_regions`.
    """

    centroids: NDArray[np.float32]
    max_extra: int
    eps: float
    regions: Regions | None = None

    def __len__(self) -> int:
        return len(self.centroids)

    def nearest(self, rows: NDArray[np.float32], n_nearest: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return the M nearest cells of each row, ascending, ties by cell, and how far away their borders are.

        Matrix products propose a few more; differences decide, so that the block's size changes nothing.

        Returns:
            cells: (B, M).
            borders: (B, M) as shares of the distance to the nearest centroid, 0 for its own cell.
        """
        rows = np.ascontiguousarray(rows)
        n_nearest = min(n_nearest, len(self))
        cells, distances = self._among_all(rows, n_nearest) if self.regions is None else self._listed(rows, n_nearest)
        nearest = distances[:, :1]
        apart = squared_distances(self.centroids[cells[:, 0]], self.centroids, np.maximum(cells, 0))
        with np.errstate(divide="ignore", invalid="ignore"):
            borders = (distances - nearest) / (2 * np.sqrt(apart) * np.sqrt(nearest))
        return cells, np.where(distances <= nearest, np.float32(0), borders)

    def assign(self, rows: NDArray[np.float32]) -> NDArray[np.int64]:
        """Return the cells (B, 1 + max_extra) of each row, the nearest first, ``NO_CELL`` where there are fewer."""
        cells, borders = self.nearest(rows, 1 + self.max_extra)
        cells[borders > self.eps] = NO_CELL
        return cells

    def _among_all(self, rows: NDArray[np.float32], n_nearest: int) -> Neighbors:
        """Return the nearest cells (B, M), ascending, and squared distances."""
        everyone, nobody = np.arange(len(self)), np.full(len(rows), NO_CELL)
        cells, distances, _ = nearest_by_products(
            self.centroids, everyone, n_nearest, n_nearest + MARGIN, (rows, nobody)
        )
        if np.isinf(distances[:, -1]).any():
            far = np.flatnonzero(np.isinf(distances[:, -1]))
            raise SearchFailedError(
                f"{len(far):,} of {len(rows):,} rows are farther from centroids than float32 can say; scale the "
                "vectors down, or leave out those that are far from all"
            )
        return cells, distances

    def _listed(self, rows: NDArray[np.float32], n_nearest: int) -> Neighbors:
        """Return the nearest cells (B, M) of those that the rows' regions list, and squared distances."""
        assert self.regions is not None
        proposed = self.regions.nearest(rows, self.centroids, min(n_nearest + MARGIN, len(self)))
        distances = squared_distances(rows, self.centroids, np.maximum(proposed, 0))
        distances[proposed < 0] = np.inf
        order = np.lexsort((proposed, distances), axis=1)[:, :n_nearest]
        return np.take_along_axis(proposed, order, axis=1), np.take_along_axis(distances, order, axis=1)


def fit_regions(centroids: NDArray[np.float32], seed: int) -> Regions | None:
    """Return regions of cells at ``centroids`` (C, D), None where cells are so few that all are looked at."""
    if len(centroids) <= TWO_LEVEL_CELLS:
        return None
    return Regions.of(centroids, fit_centroids(centroids, n_regions(len(centroids)), seed))


def assign_us(n_cells: int, dim: int) -> float:
    """Return core-microseconds of assigning one row."""
    if n_cells <= TWO_LEVEL_CELLS:
        return query_us(dim) + pair_us(dim) * n_cells
    return 2 * query_us(dim) + pair_us(dim) * (n_regions(n_cells) + LISTED * n_cells / n_regions(n_cells))


def cell_bytes(dim: int) -> int:
    """Return what a cell takes in every process that routes rows: its centroid, and the lists of regions it is in."""
    return 4 * dim + 4 * LISTED

"""Overlapping cells: a row lives in its nearest cell, and also in others that are nearly as near.

A row goes to its nearest centroid's cell and to up to ``max_extra`` more whose distance is at most (1 + eps) times
the nearest. Two rows that share a cell can find each other; overlap is what keeps borders from cutting the graph.

Shape letters: N rows, B rows of a block, C cells, D features, M cells looked at.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distspectral.graph.faiss_search import import_faiss
from distspectral.graph.solvers import squared_distances

TWO_LEVEL_CELLS = 20_000
"""Above it, centroids are looked for through centroids of centroids."""
TWO_STEP_CELLS = 2_000
"""Above it, k-means runs inside the cells of a coarser k-means."""
ITERATIONS = 10
POINTS_PER_CENTROID = 128
SPLIT_ROUNDS = 6
MARGIN = 2
NO_CELL = -1


def fit_centroids(sample: NDArray[np.float32], n_cells: int, seed: int) -> NDArray[np.float32]:
    """Return (C, D) centroids of k-means on a sample (S, D); fewer than asked for where rows are equal."""
    if n_cells >= len(sample):
        return np.unique(sample, axis=0)
    if n_cells > TWO_STEP_CELLS:
        return _in_two_steps(sample, n_cells, seed)
    kmeans = import_faiss().Kmeans(
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
    """Return centroids of which none is the nearest to more than ``max_share`` of the sample, where rows differ."""
    for round_index in range(SPLIT_ROUNDS):
        home = Cells(centroids, 0, 0.0).nearest(sample, 1)[0][:, 0]
        shares = np.bincount(home, minlength=len(centroids)) / len(sample)
        large = np.flatnonzero(shares > max_share)
        if not len(large):
            break
        parts = [np.delete(centroids, large, axis=0)]
        for cell in large:
            n_parts = int(np.ceil(shares[cell] / max_share))
            parts.append(fit_centroids(sample[home == cell], n_parts, seed + round_index + 1))
        centroids = np.concatenate(parts)
    return centroids


@dataclasses.dataclass(frozen=True)
class Cells:
    """Centroids and how far rows spill over; picklable.

    Attributes:
        centroids: (C, D) float32.
        max_extra: cells beyond the nearest that a row may be in.
        eps: how much farther than the nearest they may be, as a share of its distance.
    """

    centroids: NDArray[np.float32]
    max_extra: int
    eps: float

    def __len__(self) -> int:
        return len(self.centroids)

    def nearest(self, rows: NDArray[np.float32], n_nearest: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return the M nearest cells of each row and their squared distances, ascending, ties by cell.

        Matrix products propose a few more; differences decide, so that the block's size changes nothing.
        """
        rows = np.ascontiguousarray(rows)
        n_nearest = min(n_nearest, len(self))
        proposed = self._propose(rows, min(n_nearest + MARGIN, len(self)))
        distances = squared_distances(rows, self.centroids, np.maximum(proposed, 0))
        distances[proposed < 0] = np.inf
        order = np.lexsort((proposed, distances), axis=1)[:, :n_nearest]
        return np.take_along_axis(proposed, order, axis=1), np.take_along_axis(distances, order, axis=1)

    def assign(self, rows: NDArray[np.float32]) -> NDArray[np.int64]:
        """Return the cells (B, 1 + max_extra) of each row, the nearest first, ``NO_CELL`` where there are fewer."""
        cells, distances = self.nearest(rows, 1 + self.max_extra)
        cells[distances > spill(distances[:, :1], self.eps)] = NO_CELL
        return cells

    def _propose(self, rows: NDArray[np.float32], n_nearest: int) -> NDArray[np.int64]:
        faiss: Any = import_faiss()
        if len(self) <= TWO_LEVEL_CELLS:
            found: NDArray[np.int64] = faiss.knn(rows, self.centroids, n_nearest)[1]
            return found
        return self._two_levels(faiss).search(rows, n_nearest)[1]  # type: ignore[no-any-return]

    def _two_levels(self, faiss: Any) -> Any:
        n_lists = int(np.sqrt(len(self)))
        coarse = faiss.IndexFlatL2(self.centroids.shape[1])
        index = faiss.IndexIVFFlat(coarse, self.centroids.shape[1], n_lists)
        index.cp.seed = 1
        index.train(self.centroids)
        index.add(self.centroids)
        index.nprobe = 16
        return index


def spill(nearest: NDArray[np.float32], eps: float) -> NDArray[np.float32]:
    """Return the largest squared distance at which a row still belongs to a cell."""
    limit: NDArray[np.float32] = nearest * np.float32((1 + eps) ** 2)
    return limit

"""Many cells in two levels: a row's cells are looked for among those that are listed for its region.

A region is what is nearest to one of a few centroids of the cells' centroids. A cell is listed for so many regions that
hardly a row has a near cell which its region does not list: two rows that a list keeps from sharing a cell can make up
for it only by more overlap, or not at all.

Shape letters: B rows of a block, C cells, A regions, L regions that list a cell, D features, M cells looked for.
"""

from __future__ import annotations

import dataclasses
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from distspectral.graph.search.faiss_search import knn

LISTED = 64
"""Regions that list a cell. With 8 of them, 22 to 36% of the rows of white noise in 16 dimensions miss their nearest of
6,000 to 30,000 cells, with 64 6 to 8%; of rows near a manifold of 8 dimensions 2% and .1%."""
NOT_LISTED = -1


@dataclasses.dataclass(frozen=True)
class Regions:
    """Regions and the cells that they list; picklable.

    Attributes:
        centroids: (A, D) float32.
        cells: (C * L,) int32 cells, region by region, ascending in each.
        stops: (A,) where in ``cells`` each region's end.
    """

    centroids: NDArray[np.float32]
    cells: NDArray[np.int32]
    stops: NDArray[np.int64]

    @classmethod
    def of(cls, cells: NDArray[np.float32], centroids: NDArray[np.float32]) -> Self:
        """Return the regions around centroids (A, D), where each cell (C, D) is listed for its nearest ones."""
        near = knn(cells, centroids, min(LISTED, len(centroids)))[1]
        starts = np.arange(len(near) + 1, dtype=np.int64) * near.shape[1]
        listed = sparse.csr_array(
            (np.ones(near.size, bool), near.ravel(), starts), (len(cells), len(centroids))
        ).tocsc()
        return cls(centroids, listed.indices.astype(np.int32), listed.indptr[1:].astype(np.int64))

    def __len__(self) -> int:
        return len(self.centroids)

    def nearest(self, rows: NDArray[np.float32], cells: NDArray[np.float32], n_nearest: int) -> NDArray[np.int64]:
        """Return the cells (B, M) whose centroids, of all (C, D), are nearest to rows of those that their regions list.

        In any order, by rounded products; ``NOT_LISTED`` where a region lists fewer.
        """
        region = knn(rows, self.centroids, 1)[1][:, 0]
        found = np.full((len(rows), n_nearest), NOT_LISTED, np.int64)
        order = np.argsort(region, kind="stable")
        for part in np.split(order, np.flatnonzero(np.diff(region[order])) + 1):
            listed = self._listed(int(region[part[0]]))
            near = knn(rows[part], cells[listed], min(n_nearest, len(listed)))[1]
            found[part, : near.shape[1]] = listed[near]
        return found

    def _listed(self, region: int) -> NDArray[np.int32]:
        return self.cells[self.stops[region - 1] if region else 0 : self.stops[region]]


def n_regions(n_cells: int) -> int:
    """Return how many regions make the fewest pairs of a row and a centroid."""
    return int(np.sqrt(LISTED * n_cells))

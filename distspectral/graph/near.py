"""Pairs of rows no farther apart than a threshold, by the neighbour lists of a finished search.

A search ranks by true differences, so the distances beside its lists are those of the rows it searched. Distances of
other rows, or under another metric, are computed anew for the neighbours that are listed.

Shape letters: N rows, B rows asked for, K neighbours, D features, M pairs.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from distspectral.graph.config import Metric
from distspectral.graph.search.exact import squared_distances
from distspectral.graph.store import Edges, StreamedGraph
from distspectral.storage.rows.vectors import Vectors

Measure = Literal["l2", "cosine", "centered_cosine"]
"""What near means: Euclidean distance, or 1 - cos, of the rows or of those around their mean."""

OF_SEARCH: dict[Metric, Measure] = {
    "l2": "l2",
    "cosine": "cosine",
    "centered_cosine": "centered_cosine",
    "inner_product": "l2",  # the largest product says nothing of likeness
}
"""What near means where nobody says, by the metric of the search."""

GATHERED_BYTES = 1 << 27
"""Most bytes of neighbours' vectors that are held at once."""

NAMES: dict[Measure, str] = {
    "l2": "Euclidean distance",
    "cosine": "cosine distance, 1 - cos",
    "centered_cosine": "cosine distance around the mean of all rows, 1 - cos",
}


@dataclasses.dataclass(frozen=True)
class Scale:
    """Squared distances of a search as distances for people, and back.

    Attributes:
        measure: see :data:`Measure`.
        unit: of Euclidean distances, in that of the source; cosines have none.
    """

    measure: Measure
    unit: float = 1.0

    def distances(self, squared: NDArray[Any]) -> NDArray[np.float64]:
        """Return the distances of squared ones: of rows of length 1, |a - b|^2 / 2 = 1 - cos."""
        wide = squared.astype(np.float64)
        return self.unit * np.sqrt(wide) if self.measure == "l2" else wide / 2

    def squared(self, distance: float) -> float:
        """Return the squared distance of a distance."""
        in_unit = distance / self.unit
        return in_unit * in_unit if self.measure == "l2" else 2 * distance


class RemeasuredLists:
    """Neighbour lists with the squared distances of other rows than those searched.

    Args:
        lists: (N, K) neighbours.
        vectors: (N, D), whose Euclidean distances count.
        first: number of the row that the first list is of, where lists are those of some rows only.
    """

    def __init__(self, lists: StreamedGraph, vectors: Vectors, first: int = 0) -> None:
        self._lists, self._vectors, self._first = lists, vectors, first
        self.n_rows, self.n_neighbors = lists.n_rows, lists.n_neighbors

    def block(self, start: int, stop: int) -> Edges:
        """Return neighbours (B, K) int64 and squared distances (B, K) float32 of rows ``start`` to ``stop``."""
        neighbors, found = self._lists.block(start, stop)
        squared = np.empty(neighbors.shape, np.float32)
        step = max(1, GATHERED_BYTES // (4 * self._vectors.dim * self.n_neighbors))
        for low in range(0, stop - start, step):
            part = slice(low, low + step)
            rows, positions = np.unique(neighbors[part], return_inverse=True)
            own = self._first + start + low
            queries = self._vectors.block(own, own + len(neighbors[part]))
            positions = positions.reshape(-1, self.n_neighbors)
            squared[part] = squared_distances(queries, self._vectors.gather(rows), positions)
        squared[np.isinf(found)] = np.inf  # a missing neighbour is the row itself
        return neighbors, squared


def pairs_within(
    neighbors: NDArray[np.int64], squared: NDArray[np.float32], start: int, limit: float, above: float = -1.0
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows (M,) and neighbours (M,) whose squared distance is at most ``limit`` and more than ``above``.

    Args:
        neighbors: (B, K) of consecutive rows.
        squared: (B, K); infinite where a neighbour is missing and the row itself stands for it.
        start: number of the first row.
        limit: see above.
        above: likewise.
    """
    at, slot = np.nonzero((squared <= limit) & (squared > above))
    return at + start, neighbors[at, slot]

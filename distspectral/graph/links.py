"""Small components are tied to their nearest others: a few edges instead of eigenvalues 0 that only tell pieces apart.

Each component but the largest links its nearest row outside itself to the nearest row inside; rounds go on until one
component is left. A link takes the place of its row's farthest neighbour, so lists keep their length.

Shape letters: N rows, B rows of a block, D features, K neighbours, Q rows that ask, L links.
"""

from __future__ import annotations

import dataclasses
import logging
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distspectral.graph.components import component_labels
from distspectral.graph.distances import gathered_queries
from distspectral.graph.search.exact import squared_distances
from distspectral.graph.store import Edges, StreamedGraph
from distspectral.storage.rows.vectors import Vectors

logger = logging.getLogger(__name__)

MOST_QUERIES = 20_000
"""Rows that ask in one round, over all components: each is compared with all rows."""
MOST_OF_ONE = 64
"""Rows of one component that ask."""
MOST_ROUNDS = 20
BASE_ROWS, QUERY_ROWS = 1 << 14, 256


@dataclasses.dataclass(frozen=True)
class Links:
    """Edges added to the neighbour lists.

    Attributes:
        rows: (L,) ascending; a row may have several.
        targets: (L,) where they lead.
        squared_distances: (L,) float32.
        components: how many there were before.
    """

    rows: NDArray[np.int64]
    targets: NDArray[np.int64]
    squared_distances: NDArray[np.float32]
    components: int

    @classmethod
    def none(cls) -> Links:
        """Return no links."""
        return cls(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32), 1)

    def applied(self, start: int, neighbors: NDArray[np.int64], distances: NDArray[np.float32]) -> Edges:
        """Return a block's lists (B, K) with its rows' links in place of their farthest neighbours.

        Args:
            start: first row of the block.
            neighbors: (B, K).
            distances: (B, K) squared.
        """
        low, high = np.searchsorted(self.rows, (start, start + len(neighbors)))
        if low == high:
            return neighbors, distances
        neighbors, distances = neighbors.copy(), distances.copy()
        local = self.rows[low:high] - start
        slot = neighbors.shape[1] - 1 - (np.arange(len(local)) - np.searchsorted(local, local))
        fits = slot >= 0
        neighbors[local[fits], slot[fits]] = self.targets[low:high][fits]
        distances[local[fits], slot[fits]] = self.squared_distances[low:high][fits]
        return neighbors, distances

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return what :meth:`of` takes."""
        return {**dataclasses.asdict(self), "components": np.asarray(self.components)}

    @classmethod
    def of(cls, arrays: Any) -> Links:
        """Return links from their arrays by name."""
        return cls(arrays["rows"], arrays["targets"], arrays["squared_distances"], int(arrays["components"]))


class _Linked:
    """Neighbour lists as a graph whose edges are the neighbours found and the links so far."""

    def __init__(self, lists: StreamedGraph, links: Links) -> None:
        self._lists, self._links = lists, links
        self.n_rows, self.n_neighbors = lists.n_rows, lists.n_neighbors

    def block(self, start: int, stop: int) -> Edges:
        neighbors, distances = self._links.applied(start, *self._lists.block(start, stop))
        return neighbors, np.isfinite(distances).astype(np.float32)


def find_links(lists: StreamedGraph, vectors: Vectors) -> Links:
    """Return the links that leave one component.

    Args:
        lists: (N, K) neighbours and, in place of affinities, squared distances.
        vectors: (N, D) under the same metric.
    """
    links, before = Links.none(), 0
    for _ in range(MOST_ROUNDS):
        labels = component_labels(_Linked(lists, links))
        names, sizes = np.unique(labels, return_counts=True)
        before = before or len(names)
        if len(names) == 1:
            return dataclasses.replace(links, components=before)
        small = names[np.argsort(-sizes, kind="stable")[1:]]
        links = _with_more(links, vectors, labels, small)
    logger.warning("%d components are left after %d rounds of links", len(names), MOST_ROUNDS)
    return dataclasses.replace(links, components=before)


def _with_more(links: Links, vectors: Vectors, labels: NDArray[np.int64], small: NDArray[np.int64]) -> Links:
    """Return the links and one more from each of the ``small`` components."""
    queries = _asking(labels, small[:MOST_QUERIES])
    own = labels[queries]
    targets, distances = nearest_outside(vectors, gathered_queries(vectors, queries), own, labels, 0, vectors.n_rows)
    return with_links(links, queries, own, targets, distances)


def with_links(
    links: Links,
    queries: NDArray[np.int64],
    own: NDArray[np.int64],
    targets: NDArray[np.int64],
    distances: NDArray[np.float32],
) -> Links:
    """Return links and the shortest one more from each component that asks.

    Args:
        links: so far.
        queries: (Q,) rows that ask.
        own: (Q,) their components.
        targets: (Q,) the nearest row of another component, negative where there is none.
        distances: (Q,) squared.
    """
    found = targets >= 0  # else all others are infinitely far
    queries, own, targets, distances = queries[found], own[found], targets[found], distances[found]
    order = np.lexsort((targets, queries, distances, own))
    first = order[np.unique(own[order], return_index=True)[1]]
    rows = np.concatenate([links.rows, queries[first]])
    order = np.argsort(rows, kind="stable")
    return Links(
        rows[order],
        np.concatenate([links.targets, targets[first]])[order],
        np.concatenate([links.squared_distances, distances[first]])[order],
        links.components,
    )


def _asking(labels: NDArray[np.int64], components: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return some rows of each component, evenly spread over its row numbers, ascending."""
    members = np.flatnonzero(np.isin(labels, components))
    members = members[np.argsort(labels[members], kind="stable")]
    starts = np.flatnonzero(np.diff(labels[members], prepend=-1))
    sizes = np.diff(starts, append=len(members))
    kept = [start + kept_members(size, len(components)) for start, size in zip(starts, sizes, strict=True)]
    rows: NDArray[np.int64] = np.sort(members[np.concatenate(kept)])
    return rows


def kept_members(size: int, n_components: int) -> NDArray[np.int64]:
    """Return which rows of a component ask, by their place among all of its rows, ascending.

    Args:
        size: its rows.
        n_components: that ask.
    """
    most = min(size, max(1, min(MOST_OF_ONE, MOST_QUERIES // n_components)))
    return np.arange(most) * size // most


def nearest_outside(
    vectors: Vectors,
    at: NDArray[np.float32],
    own: NDArray[np.int64],
    labels: NDArray[np.integer[Any]],
    first: int,
    last: int,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the nearest row (Q,) of another component among some rows, and its squared distance, ties by row number.

    Args:
        vectors: (N, D).
        at: (Q, D) rows that ask.
        own: (Q,) their components.
        labels: (last - first,) components of the rows.
        first: of the rows.
        last: behind them.

    Returns:
        Row numbers, negative where there is none, and distances.
    """
    mean = vectors.mean.astype(np.float32)
    best = np.full(len(at), -1, np.int64)
    distances = np.full(len(at), np.inf, np.float32)
    for start in range(first, last, BASE_ROWS):
        stop = min(start + BASE_ROWS, last)
        block, others = np.ascontiguousarray(vectors.block(start, stop)), labels[start - first : stop - first]
        centred = block - mean
        lengths = np.einsum("ij,ij->i", centred, centred)
        for low in range(0, len(at), QUERY_ROWS):
            part = slice(low, low + QUERY_ROWS)
            scores = lengths - 2 * (at[part] - mean) @ centred.T
            scores[own[part, None] == others] = np.inf
            near = np.argmin(scores, axis=1)
            found = squared_distances(at[part], block, near[:, None])[:, 0]
            nearer = np.isfinite(scores[np.arange(len(near)), near]) & (found < distances[part])
            distances[part][nearer] = found[nearer]
            best[part][nearer] = near[nearer] + start
    return best, distances


def link_facts(links: Links) -> dict[str, Any]:
    """Return ``components_before`` and ``links``, how many edges were added."""
    return {"components_before": links.components, "links": len(links.rows)}

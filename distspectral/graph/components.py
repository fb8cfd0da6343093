"""Connected components by contraction: one parent per row in memory, the edges stream by in blocks."""

from __future__ import annotations

import numpy as np
import scipy.sparse
from numpy.typing import NDArray
from scipy.sparse import csgraph

from distspectral.graph.store import StreamedGraph, edge_blocks

FIRST_EDGES = 2
"""Edges of a row that are joined before all others."""
BLOCK_ROWS = 1 << 20
"""Rows whose components are looked up at once."""


def component_labels(graph: StreamedGraph, block_rows: int | None = None) -> NDArray[np.int64]:
    """Return each row's component, named by its smallest row; edges count in both directions.

    Each block's edges are contracted to edges between the components known so far, whose components are merged. That is
    done to the first edges of all rows before it is done to all: these join most rows, and an edge inside a component
    costs no more than being looked at (Sutton, Ben-Nun, Barak: *Optimizing Parallel Graph Connectivity Computation via
    Subgraph Sampling*, IPDPS 2018).

    Args:
        graph: N rows; edges of affinity 0 are none.
        block_rows: rows read at a time; by default about four million edges.

    Returns:
        (N,) int64.
    """
    components = Components(graph.n_rows)
    for columns in (slice(FIRST_EDGES), slice(FIRST_EDGES, None)):
        for start, all_neighbors, all_affinities in edge_blocks(graph, block_rows):
            neighbors, affinities = all_neighbors[:, columns], all_affinities[:, columns]
            rows = np.arange(start, start + len(neighbors))
            heads = np.broadcast_to(components.of(rows)[:, None], neighbors.shape)
            tails = components.of(neighbors.ravel()).reshape(neighbors.shape)
            joins = (heads != tails) & (affinities > 0)
            components.merge(heads[joins], tails[joins])
    return components.labels()


class Components:
    """Rows that edges join, while edges are still coming: 8 bytes a row.

    Args:
        n_rows: N.
    """

    def __init__(self, n_rows: int) -> None:
        self._parents = np.arange(n_rows, dtype=np.int64)

    def of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the components (B,) of rows (B,) so far, each named by its smallest row."""
        while True:
            above = self._parents[rows]
            if np.array_equal(above, rows):
                return above
            rows = above

    def merge(self, heads: NDArray[np.int64], tails: NDArray[np.int64]) -> None:
        """Join components (M,), as :meth:`of` names them, with others (M,), pair by pair."""
        if len(heads):
            roots, ends = np.unique(np.concatenate([heads, tails]), return_inverse=True)
            heads, tails = np.split(ends, 2)
            edges = scipy.sparse.coo_array((np.ones(len(heads), bool), (heads, tails)), shape=(len(roots), len(roots)))
            _, merged = csgraph.connected_components(edges, directed=False)
            _, first = np.unique(merged, return_index=True)
            self._parents[roots] = roots[first[merged]]

    def labels(self) -> NDArray[np.int64]:
        """Return the component (N,) of every row."""
        for start in range(0, len(self._parents), BLOCK_ROWS):
            part = slice(start, start + BLOCK_ROWS)
            self._parents[part] = self.of(self._parents[part])
        return self._parents

"""Connected components by contraction: one parent per row in memory, the edges stream by in blocks."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray
from scipy.sparse import csgraph

from distspectral.graph.store import Graph

BLOCK_EDGES = 1 << 22


def component_labels(graph: Graph, block_rows: int | None = None) -> NDArray[np.int64]:
    """Return each row's component, named by its smallest row; edges count in both directions.

    Each block's edges are contracted to edges between the components known so far, whose components are merged.

    Args:
        graph: N rows; edges of affinity 0 are none.
        block_rows: rows read at a time; by default about four million edges.

    Returns:
        (N,) int64.
    """
    parents = np.arange(graph.n_rows, dtype=np.int64)
    rows = block_rows or max(1, BLOCK_EDGES // graph.n_neighbors)
    for start in range(0, graph.n_rows, rows):
        stop = min(start + rows, graph.n_rows)
        neighbors, affinities = graph.block(start, stop)
        heads = np.repeat(np.arange(start, stop), graph.n_neighbors)[affinities.ravel() > 0]
        tails = neighbors.ravel()[affinities.ravel() > 0]
        ends = _roots(parents, np.concatenate([heads, tails]))
        if graph.n_rows <= len(ends):  # then sorting out which rows the block names costs more than taking all
            parents = _merged(ends, graph.n_rows)[parents]
        else:
            roots, ends = np.unique(ends, return_inverse=True)
            parents[roots] = roots[_merged(ends, len(roots))]
    return _roots(parents, parents)


def component_facts(graph: Graph, block_rows: int | None = None) -> dict[str, Any]:
    """Return ``components``, their number, and ``largest_component_share``, the largest one's share of all rows."""
    sizes = np.bincount(component_labels(graph, block_rows), minlength=graph.n_rows)
    return {
        "components": int(np.count_nonzero(sizes)),
        "largest_component_share": float(sizes.max() / graph.n_rows),
    }


def _merged(ends: NDArray[np.int64], n_rows: int) -> NDArray[np.int64]:
    """Return the smallest row that each row is connected to by edges from the first half of ``ends`` to the second."""
    heads, tails = np.split(ends, 2)
    edges = scipy.sparse.coo_array((np.ones(len(heads), bool), (heads, tails)), shape=(n_rows, n_rows))
    _, merged = csgraph.connected_components(edges, directed=False)
    _, first = np.unique(merged, return_index=True)
    smallest: NDArray[np.int64] = first[merged]
    return smallest


def _roots(parents: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    while True:
        above = parents[rows]
        if np.array_equal(above, rows):
            return above
        rows = above

"""What a finished graph is like: its components, and the degrees of its symmetrised form, summed as it streams by.

Shape letters: N rows, K neighbours.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distspectral.graph.components import component_labels
from distspectral.graph.store import StreamedGraph, edge_blocks

logger = logging.getLogger(__name__)

HISTOGRAM_BINS = 40


def graph_facts(graph: StreamedGraph, of_same_edges: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return ``k``, :func:`component_facts` and :func:`degree_facts`; warn where the graph falls apart.

    Args:
        graph: N rows.
        of_same_edges: facts of a graph with the same edges and other weights, whose components these are.
    """
    known = of_same_edges and {name: of_same_edges[name] for name in ("components", "largest_component_share")}
    facts = {"k": graph.n_neighbors, **(known or component_facts(graph)), **degree_facts(graph)}
    if not known and facts["components"] > 1:
        logger.warning(
            "The graph has %d connected components, the largest with %.1f%% of the rows: the eigenvalue 0 is "
            "repeated and the first functions only tell components apart. More neighbours per row, or a link from "
            "each component to its nearest other, would join them.",
            facts["components"],
            100 * facts["largest_component_share"],
        )
    return facts


def component_facts(graph: StreamedGraph) -> dict[str, Any]:
    """Return ``components``, their number, and ``largest_component_share``, the largest one's share of all rows."""
    sizes = np.bincount(component_labels(graph), minlength=graph.n_rows)
    return {
        "components": int(np.count_nonzero(sizes)),
        "largest_component_share": float(sizes.max() / graph.n_rows),
    }


def degrees(graph: StreamedGraph, block_rows: int | None = None) -> NDArray[np.float64]:
    """Return (N,) degrees, weight going out plus weight coming in: the row sums of W + W'.

    Args:
        graph: N rows.
        block_rows: rows read at a time; by default about four million edges.
    """
    total = np.zeros(graph.n_rows)
    for start, neighbors, affinities in edge_blocks(graph, block_rows):
        weights = affinities.astype(np.float64)
        total[start : start + len(weights)] += weights.sum(axis=1)
        # not bincount over all N: with small blocks of a large graph that would be N work a block
        np.add.at(total, neighbors.ravel(), weights.ravel())
    return total


def degree_facts(graph: StreamedGraph) -> dict[str, Any]:
    """Return ``total_affinity`` (sum of all weights), the smallest, median and largest degree, and a histogram."""
    degree = degrees(graph)
    counts, edges = np.histogram(degree, bins=HISTOGRAM_BINS)
    return {
        "total_affinity": float(degree.sum() / 2),
        "degree_min": float(degree.min()),
        "degree_median": float(np.median(degree)),
        "degree_max": float(degree.max()),
        "degree_histogram": {"counts": counts.tolist(), "edges": edges.tolist()},
    }

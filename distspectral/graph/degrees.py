"""Degrees of the symmetrised graph, weight going out plus weight coming in, summed while the graph streams by."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from distspectral.graph.store import Graph

BLOCK_EDGES = 1 << 22
HISTOGRAM_BINS = 40


def degrees(graph: Graph) -> NDArray[np.float64]:
    """Return (N,) degrees: the row sums of W + W'."""
    total = np.zeros(graph.n_rows)
    rows = max(1, BLOCK_EDGES // graph.n_neighbors)
    for start in range(0, graph.n_rows, rows):
        stop = min(start + rows, graph.n_rows)
        neighbors, affinities = graph.block(start, stop)
        weights = affinities.astype(np.float64)
        total[start:stop] += weights.sum(axis=1)
        # not bincount over all N: with small blocks of a large graph that would be N work a block
        np.add.at(total, neighbors.ravel(), weights.ravel())
    return total


def degree_facts(graph: Graph) -> dict[str, Any]:
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

"""Groups of a few rows each, from the edges alone: pairs of groups that are nearest to each other merge, pass by pass.

Functions of the graph tell some thousand clusters apart and no more. What is finer lies in the edges. In each pass over
them every group finds the one that it is tied to most, among those of the same part, and two that find each other
become one. So groups at most double in a pass, and none swallows the others as by thresholds and components.

Shape letters: N rows, B rows of a block, K neighbours, G groups.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from distspectral.graph.store import StreamedGraph, edge_blocks

ALONE = -1
"""Partner of a group that has found none."""
LARGEST = 3
"""Times the average rows of a group that is asked for: larger ones are not made as long as others can be."""
SLOW = 0.02
"""Share of the groups that merge in a pass, below which larger ones are allowed."""
TIES = np.float32(2.0**-12)
"""Relative differences below those of 16-bit affinities, by which equal ones are told apart, the same way from both
ends."""
BLOCK_EDGES = 1 << 20


def fine_groups(graph: StreamedGraph, parts: NDArray[np.integer[Any]], n_groups: int) -> NDArray[np.int64]:
    """Return the group (N,) of every row, from 0; groups are inside parts.

    Merged are pairs (a, b) whose largest w / sqrt(|a| |b|), with w the affinity of an edge between them, is the largest
    of both. That is a matching by locally heaviest edges. It ends with ``n_groups``, or more if too few edges stay
    inside parts. Memory: some 100 bytes a row in the first passes, and a block of edges;
    some 25 passes for groups of a hundred rows.

    Args:
        graph: of N rows.
        parts: (N,) of every row; no group holds rows of two.
        n_groups: wished for.

    Reference: Birn, Osipov, Sanders, Schulz, Sitchinava, Efficient parallel and external matching, Euro-Par 2013.
    """
    n_rows = graph.n_rows
    groups, sizes = np.arange(n_rows), np.ones(n_rows, np.int64)
    most = LARGEST * max(2, n_rows // max(1, n_groups))
    while len(sizes) > n_groups:
        partners, best = _nearest(graph, parts, groups, sizes, most)
        low = np.flatnonzero((partners > np.arange(len(sizes))) & (partners[partners] == np.arange(len(sizes))))
        if len(low) < SLOW * len(sizes):
            if most >= n_rows and not len(low):
                break
            most = min(2 * most, n_rows)
        if len(low) > (left := len(sizes) - n_groups):
            low = np.sort(low[np.argpartition(-best[low], left - 1)[:left]])
        numbers = np.arange(len(sizes))
        numbers[partners[low]] = low
        kept = numbers == np.arange(len(sizes))
        sizes[low] += sizes[partners[low]]
        sizes, numbers = sizes[kept], (np.cumsum(kept) - 1)[numbers]
        for start in range(0, n_rows, BLOCK_EDGES):
            groups[start : start + BLOCK_EDGES] = numbers[groups[start : start + BLOCK_EDGES]]
    return groups


def _nearest(
    graph: StreamedGraph,
    parts: NDArray[np.integer[Any]],
    groups: NDArray[np.int64],
    sizes: NDArray[np.int64],
    most: int,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the group (G,) that each is tied to most, and how much (G,), in one pass over the edges.

    Args:
        graph: of N rows.
        parts: (N,).
        groups: (N,).
        sizes: (G,).
        most: rows of two groups together, at most.
    """
    partners, best = np.full(len(sizes), ALONE), np.zeros(len(sizes), np.float32)
    shares = sizes.astype(np.float32) ** np.float32(-0.5)
    for start, neighbors, affinities in edge_blocks(graph, max(1, BLOCK_EDGES // graph.n_neighbors)):
        stop = start + len(neighbors)
        heads, tails = np.repeat(groups[start:stop], neighbors.shape[1]), groups[neighbors.ravel()]
        inside = np.repeat(parts[start:stop], neighbors.shape[1]) == parts[neighbors.ravel()]
        weights = affinities.ravel()
        fits = np.flatnonzero(inside & (heads != tails) & (weights > 0) & (sizes[heads] + sizes[tails] <= most))
        heads, tails = heads[fits], tails[fits]
        ties = weights[fits] * shares[heads] * shares[tails]
        ties *= 1 + TIES * _coin(heads, tails)
        for ends, others in ((heads, tails), (tails, heads)):
            np.maximum.at(best, ends, ties)
            found = ties == best[ends]
            partners[ends[found]] = others[found]
    return partners, best


def _coin(heads: NDArray[np.int64], tails: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return a number from 0 to 1 for each pair, the same whichever end comes first."""
    mixed = (heads ^ tails) * 0x9E3779B1 + (heads + tails) * 0x85EBCA77
    return ((mixed >> 8) & 0xFFFF).astype(np.float32) / np.float32(0x10000)

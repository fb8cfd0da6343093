"""How much an edge weighs: by the distances of the search, or anew by those in a learned space.

Shape letters: N rows, B rows of a block, K neighbours, E features.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from distspectral.graph.config import AffinityConfig
from distspectral.graph.store import Graph
from distspectral.graph.stratified import StratifiedRows
from distspectral.spectral import affinity
from distspectral.storage.rows.vectors import Vectors

COMPARED_BYTES = 1 << 26
"""Pairs of neighbours compared at a time, a byte each, where shared neighbours are counted."""
MEDIAN_ROWS = 100_000
"""Rows whose edges give the median distance in a learned space."""
GATHERED_ROWS = 1 << 14
"""Rows whose neighbours' features are in memory at a time."""
SMALLEST = float(np.finfo(np.float16).tiny)
"""Least new weight of an edge, the smallest normal float16: reweighting never cuts the graph apart."""


def row_scales(squared_distances: NDArray[np.float32], config: AffinityConfig) -> NDArray[np.float32]:
    """Return (B,) scales of a block's rows, 0 where undefined; :func:`all_scales` completes them."""
    scales: NDArray[np.float32] = affinity.neighbor_scales(_tensor(squared_distances), config.scale_neighbor).numpy()
    return scales


def all_scales(scales: NDArray[np.float32], config: AffinityConfig) -> NDArray[np.float32]:
    """Return (N,) positive scales of all rows from those of :func:`row_scales`, by the median of sampled rows."""
    return completed(scales, config, median_scale(scales[StratifiedRows(len(scales)).rows]))


def median_scale(scales: NDArray[np.float32]) -> float:
    """Return the median of the scales (n,) of rows; those that have none are left out."""
    return float(affinity.median_scale(_tensor(scales)))


def completed(scales: NDArray[np.float32], config: AffinityConfig, median: float) -> NDArray[np.float32]:
    """Return (B,) positive scales from those of :func:`row_scales`, by :func:`median_scale`."""
    found: NDArray[np.float32] = affinity.complete_scales(
        _tensor(scales), config.kind, torch.tensor(median, dtype=torch.float32)
    ).numpy()
    return found


def block_affinities(
    start: int,
    neighbors: NDArray[np.int64],
    squared_distances: NDArray[np.float32],
    scales: NDArray[np.float32] | None,
    config: AffinityConfig,
    graph: Graph | None = None,
) -> NDArray[np.float16]:
    """Return (B, K) affinities as they are stored.

    Args:
        start: first row of the block.
        neighbors: (B, K).
        squared_distances: (B, K), infinity where a neighbour is missing.
        scales: (N,) of all rows; None for kinds that need none.
        config: the section ``affinity``.
        graph: the neighbours of all rows; shared_neighbors only.
    """
    own = theirs = overlap = None
    if config.kind == "shared_neighbors":
        assert graph is not None, "shared neighbours are looked up in the graph"
        overlap = _overlap(start, neighbors, graph)
    elif scales is not None:
        own, theirs = _tensor(scales[start : start + len(neighbors)]), _tensor(scales[neighbors])
    weights = affinity.affinities(_tensor(squared_distances), config.kind, own, theirs, overlap)
    stored: NDArray[np.float16] = weights.to(torch.float16).numpy()
    return stored


def _overlap(start: int, neighbors: NDArray[np.int64], graph: Graph) -> torch.Tensor:
    """Return :func:`~distspectral.spectral.affinity.neighborhood_overlap` of a block (B, K), some rows at a time."""
    k = neighbors.shape[1]
    parts = []
    for part in np.array_split(np.arange(len(neighbors)), 1 + len(neighbors) * (k + 1) ** 3 // COMPARED_BYTES):
        theirs = graph.gather(neighbors[part].reshape(-1))[0].reshape(len(part), k, -1)
        parts.append(affinity.neighborhood_overlap(*map(torch.from_numpy, (start + part, neighbors[part], theirs))))
    return torch.cat(parts)


def _squared_distances(rows: NDArray[np.int64], neighbors: NDArray[np.int64], features: Vectors) -> NDArray[np.float32]:
    """Return (B, K) squared distances between ``rows`` (B,) and their ``neighbors`` (B, K)."""
    others = features.gather(neighbors.reshape(-1)).reshape(*neighbors.shape, -1)
    squared: NDArray[np.float32] = np.square(others - features.gather(rows)[:, None, :]).sum(2)
    return squared


def median_squared_distance(graph: Graph, features: Vectors) -> float:
    """Return the median squared distance over the edges of evenly spaced rows, all of them where there are few."""
    rows = np.unique(np.linspace(0, graph.n_rows - 1, MEDIAN_ROWS).astype(np.int64))
    parts = []
    for part in np.array_split(rows, max(1, len(rows) // GATHERED_ROWS)):
        neighbors, affinities = graph.gather(part)
        parts.append(_squared_distances(part, neighbors, features)[affinities > 0])
    return float(np.median(np.concatenate(parts)))


def reweighted_rows(
    graph: Graph, features: Vectors, start: int, stop: int, median: float
) -> tuple[NDArray[np.int64], NDArray[np.float16]]:
    """Return neighbours and new affinities exp(-d^2 / (2 median)), (B, K) each, of rows ``start`` to ``stop``.

    Args:
        graph: (N, K) with the old affinities; a slot without an edge stays without one.
        features: (N, E) in whose space d is.
        start: first row.
        stop: row after the last.
        median: of d^2, by :func:`median_squared_distance`; where it is 0, equal rows have 1 and others the least.
    """
    all_neighbors = np.empty((stop - start, graph.n_neighbors), np.int64)
    weights = np.empty(all_neighbors.shape, np.float16)
    for first in range(start, stop, GATHERED_ROWS):
        last = min(first + GATHERED_ROWS, stop)
        here = slice(first - start, last - start)
        all_neighbors[here], affinities = graph.block(first, last)
        squared = _squared_distances(np.arange(first, last), all_neighbors[here], features)
        with np.errstate(over="ignore"):  # most edges join equal rows: others are infinitely far in comparison
            new = np.exp(-squared / max(2 * median, float(np.finfo(np.float32).tiny)))
        weights[here] = np.where(affinities > 0, np.maximum(new, SMALLEST), 0)
    return all_neighbors, weights


def _tensor(array: NDArray[Any]) -> torch.Tensor:
    return torch.from_numpy(np.array(array))  # a copy: views of mapped files are read-only, which torch warns of

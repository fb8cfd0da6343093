"""Batches of the map: edges of the graph, and random rows that all of them are repelled from.

Edges are drawn by the root of their affinity. Neighbours in the plane are to be neighbours, whether near or not so
near: by the affinity itself, new rows keep fewer of them. Drawn alike, they mix labels.

(seed, step) decide the random rows, the same ones on all ranks, and the edges of a rank as for the eigenfunctions. So
all ranks together minimise one sum over edges.

Shape letters: N rows, M edges of a batch, S negatives.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distspectral.embedding.transfer import gathered
from distspectral.graph.store import Edges, Graph
from distspectral.objectives.batches import MapBatch
from distspectral.storage.rows.vectors import Vectors
from distspectral.training.sampling import EdgeSampler, filled_up, stratified

ALL_RANKS = 2**32 - 1
"""In place of a rank's number in the seed of what all ranks draw alike."""


class RootAffinities:
    """A graph with the root of each affinity."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self.n_rows, self.n_neighbors = graph.n_rows, graph.n_neighbors

    def block(self, start: int, stop: int) -> Edges:
        """Return neighbours (B, K) int64 and roots (B, K) float32 of rows ``start`` to ``stop``."""
        neighbors, affinities = self._graph.block(start, stop)
        return neighbors, np.sqrt(affinities)

    def gather(self, rows: NDArray[np.int64]) -> Edges:
        """Return the same of any rows, in any order, repeats allowed."""
        neighbors, affinities = self._graph.gather(rows)
        return neighbors, np.sqrt(affinities)


class MapSampler:
    """Draws edges with probability proportional to the root of their affinity, and rows uniformly.

    Args:
        vectors: all N rows.
        graph: neighbours and affinities of all N rows.
        batch_size: M, of all ranks together.
        n_negatives: S; all rows where there are fewer.
        seed: seed of the run.

    Communication: that of :class:`EdgeSampler`.
    """

    def __init__(self, vectors: Vectors, graph: Graph, *, batch_size: int, n_negatives: int, seed: int) -> None:
        self.vectors, self.seed = vectors, seed
        roots = RootAffinities(graph)
        self.edges = EdgeSampler(vectors, roots, batch_size=batch_size, laplacian="random_walk", seed=seed)
        self.n_negatives = min(n_negatives, graph.n_rows)

    def batch(self, step: int) -> MapBatch:
        """Return the edges of ``step`` on this rank, and the negatives of all."""
        heads, tails = self.edges.ends(step)
        negatives = negatives_of(self.edges.graph.n_rows, self.n_negatives, self.seed, step)
        distinct, inverse = np.unique(np.concatenate([heads, tails, negatives]), return_inverse=True)
        return map_batch(
            gathered(self.vectors, filled_up(distinct)), inverse, len(heads), self.edges.affinity_share / len(heads)
        )


def negatives_of(n_rows: int, n_negatives: int, seed: int, step: int) -> NDArray[np.int64]:
    """Return the random rows (S,) of a step, ascending, one from each S-th of the N rows."""
    generator = np.random.default_rng((seed, step, ALL_RANKS))
    return (stratified(n_negatives, generator) * n_rows).astype(np.int64)


def map_batch(vectors: Tensor, places: NDArray[np.int64], n_edges: int, weight: float) -> MapBatch:
    """Return edges of equal weight and random rows.

    Args:
        vectors: (B, D), each row once and the last one maybe again.
        places: (2 M + S,) row in ``vectors`` of all first ends, of all second ends, of the random rows.
        n_edges: M.
        weight: of each edge.
    """
    ends = torch.from_numpy(places)
    return MapBatch(
        vectors=vectors,
        heads=ends[:n_edges],
        tails=ends[n_edges : 2 * n_edges],
        negatives=ends[2 * n_edges :],
        weights=torch.full((n_edges,), weight, dtype=torch.float64),
    )

"""Batches of the map: edges of the graph, and random rows that all of them are repelled from.

(seed, step) decide the random rows, the same ones on all ranks, and the edges of a rank as for the eigenfunctions. So
all ranks together minimise one sum over edges.

Shape letters: N rows, M edges of a batch, S strangers.
"""

from __future__ import annotations

import numpy as np
import torch

from distspectral.embedding.transfer import gathered
from distspectral.graph.store import Graph
from distspectral.objectives.batches import MapBatch
from distspectral.storage.rows.vectors import Vectors
from distspectral.training.sampling import EdgeSampler, stratified

ALL_RANKS = 2**32 - 1
"""In place of a rank's number in the seed of what all ranks draw alike."""


class MapSampler:
    """Draws edges with probability proportional to affinity, and rows uniformly.

    Args:
        vectors: all N rows.
        graph: neighbours and affinities of all N rows.
        batch_size: M, of all ranks together.
        n_strangers: S; all rows where there are fewer.
        seed: seed of the run.

    Communication: that of :class:`EdgeSampler`.
    """

    def __init__(self, vectors: Vectors, graph: Graph, *, batch_size: int, n_strangers: int, seed: int) -> None:
        self.vectors, self.seed = vectors, seed
        self.edges = EdgeSampler(vectors, graph, batch_size=batch_size, laplacian="random_walk", seed=seed)
        self.n_strangers = min(n_strangers, graph.n_rows)

    def batch(self, step: int) -> MapBatch:
        """Return the edges of ``step`` on this rank, and the strangers of all."""
        heads, tails = self.edges.ends(step)
        generator = np.random.default_rng((self.seed, step, ALL_RANKS))
        strangers = (stratified(self.n_strangers, generator) * self.edges.graph.n_rows).astype(np.int64)
        rows, inverse = np.unique(np.concatenate([heads, tails, strangers]), return_inverse=True)
        n = len(heads)
        ends = torch.from_numpy(inverse)
        return MapBatch(
            vectors=gathered(self.vectors, rows),
            heads=ends[:n],
            tails=ends[n : 2 * n],
            strangers=ends[2 * n :],
            weights=torch.full((n,), self.edges.affinity_share / n, dtype=torch.float64),
        )

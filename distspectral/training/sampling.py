"""Stateless batches: (seed, step, rank, world size) decide the edges, so a restart just goes on.

Each rank draws from its own slice of the graph's rows, with probability proportional to affinity inside the
slice; the slice's share of the total affinity goes into the weights, so that all ranks together give unbiased
sums over the whole graph. Draws are stratified: one in each of B equal steps of the cumulative affinity, which
lowers the variance and reads rows in ascending order.

Shape letters: N rows, B rows of a batch, M edges of a batch, K neighbours.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distspectral.comm import collectives
from distspectral.embedding.transfer import gathered
from distspectral.graph.store import Graph, StreamedGraph
from distspectral.objectives.batches import EdgeBatch
from distspectral.spectral.affinity import AffinityKind, batch_affinity
from distspectral.spectral.rayleigh import Laplacian
from distspectral.storage.rows.vectors import Vectors

SCAN_ROWS = 1 << 18
"""Rows of the graph read at a time while affinities are accumulated."""
SIZES = 16
"""Sizes of batches between one power of two and the next; see :func:`filled_up`."""


def share(total: int, rank: int, world_size: int) -> tuple[int, int]:
    """Return (start, stop) of this rank's contiguous part of ``total`` items."""
    return total * rank // world_size, total * (rank + 1) // world_size


def stratified(n: int, generator: np.random.Generator) -> NDArray[np.float64]:
    """Return ``n`` ascending numbers in [0, 1), one uniform in each n-th of the interval."""
    return (np.arange(n) + generator.random(n)) / n


def filled_up(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the rows (B,), the last of them as often again as makes B one of few sizes, at most a sixteenth larger.

    Which rows are drawn twice differs from step to step. CPUs compile a product in bfloat16 for each size it has, which
    takes as long as several products, and keep a thousand.
    """
    power = 1 << (max(len(rows) - 1, 1).bit_length() - 1)  # of two, the last one below B
    filling = -len(rows) % max(power // SIZES, 1)
    return np.concatenate([rows, np.repeat(rows[-1:], filling)])


def cumulative_affinity(graph: StreamedGraph, start: int, stop: int) -> NDArray[np.float64]:
    """Return the running sum (stop - start,) of the total affinities of rows ``start`` to ``stop``."""
    sums = [
        graph.block(first, min(first + SCAN_ROWS, stop))[1].sum(1, dtype=np.float64)
        for first in range(start, stop, SCAN_ROWS)
    ]
    return np.cumsum(np.concatenate([np.empty(0), *sums]))


def edges_at(
    graph: Graph, cumulative: NDArray[np.float64], start: int, target: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows (M,) of both ends of the edges at places of the cumulative affinity.

    Args:
        graph: of all N rows.
        cumulative: (rows,) of :func:`cumulative_affinity` from row ``start`` on.
        start: first row.
        target: (M,) from 0 to the last of them.
    """
    local_rows = np.minimum(np.searchsorted(cumulative, target, side="right"), len(cumulative) - 1)
    before = np.where(local_rows > 0, cumulative[local_rows - 1], 0.0)
    heads = local_rows + start
    neighbors, affinities = graph.gather(heads)
    inside = np.cumsum(affinities, axis=1, dtype=np.float64)
    # Rounding can put the target a hair beyond the row's last edge: stay strictly inside.
    target = np.minimum(target - before, np.nextafter(inside[:, -1], 0.0))
    columns = (inside > target[:, None]).argmax(1)
    return heads, neighbors[np.arange(len(heads)), columns]


def edge_batch(
    vectors: Tensor, ends: NDArray[np.int64], weight: float, mass: NDArray[np.floating[Any]] | None = None
) -> EdgeBatch:
    """Return edges of equal weight.

    Args:
        vectors: (B, D), each row once and the last one maybe again.
        ends: (2, M) row in ``vectors`` of the edges' first and second ends.
        weight: of each edge.
        mass: (B,) of each row; None: half the weights of its edges.
    """
    if mass is None:
        mass = np.bincount(ends.ravel(), minlength=len(vectors)) * (weight / 2)
    return EdgeBatch(
        vectors=vectors,
        heads=torch.from_numpy(ends[0]),
        tails=torch.from_numpy(ends[1]),
        weights=torch.full((ends.shape[1],), weight, dtype=torch.float64),
        mass=torch.from_numpy(mass.astype(np.float64)),
    )


class EdgeSampler:
    """Draws edges of the global graph with probability proportional to affinity.

    Args:
        vectors: all N rows.
        graph: neighbours and affinities of all N rows.
        batch_size: M, edges of a step, all ranks together.
        laplacian: ``random_walk`` gives rows the mass of the edges drawn at them; ``unnormalized`` draws
            as many rows uniformly and gives them equal mass.
        seed: seed of the run.

    Attributes:
        growth: how many times as many edges a step has, to be set between batches.

    Communication: one all-reduce at construction, none per batch.
    """

    def __init__(
        self,
        vectors: Vectors,
        graph: Graph,
        *,
        batch_size: int,
        laplacian: Laplacian,
        seed: int,
    ) -> None:
        self.vectors, self.graph, self.laplacian, self.seed = vectors, graph, laplacian, seed
        self.rank, world_size = collectives.rank(), collectives.world_size()
        self.start, self.stop = share(graph.n_rows, self.rank, world_size)
        first, last = share(batch_size, self.rank, world_size)
        self.n_edges, self.growth = last - first, 1
        self.cumulative = cumulative_affinity(graph, self.start, self.stop)
        own = torch.tensor([self.cumulative[-1]], dtype=torch.float64)
        total = float(collectives.all_reduce_sum({"affinity": own})["affinity"])
        self.affinity_share = float(own) / total

    def batch(self, step: int) -> EdgeBatch:
        """Return the edges of ``step`` on this rank."""
        generator = np.random.default_rng((self.seed, step, self.rank))
        heads, tails = self._edges(generator)
        uniform = self._uniform_rows(generator) if self.laplacian == "unnormalized" else heads[:0]
        distinct, inverse = np.unique(np.concatenate([heads, tails, uniform]), return_inverse=True)
        rows = filled_up(distinct)
        n, mass = len(heads), None
        if self.laplacian == "unnormalized":
            row_share = (self.stop - self.start) / self.graph.n_rows
            mass = np.bincount(inverse[2 * n :], minlength=len(rows)) * (row_share / n)
        ends = inverse[: 2 * n].reshape(2, n)
        return edge_batch(gathered(self.vectors, rows), ends, self.affinity_share / n, mass)

    def ends(self, step: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return global ids (M,) of both ends of the edges of ``step`` on this rank, the same as :meth:`batch`'s."""
        return self._edges(np.random.default_rng((self.seed, step, self.rank)))

    def _edges(self, generator: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return global ids (M,) of both ends; one random number picks the row and the neighbour."""
        target = stratified(self.growth * self.n_edges, generator) * self.cumulative[-1]
        return edges_at(self.graph, self.cumulative, self.start, target)

    def _uniform_rows(self, generator: np.random.Generator) -> NDArray[np.int64]:
        """Return as many global row ids as there are edges, uniform over the slice."""
        return self.start + (stratified(self.growth * self.n_edges, generator) * (self.stop - self.start)).astype(
            np.int64
        )


class InBatchSampler:
    """Draws rows uniformly and builds affinities inside the batch: the paper's scheme, for comparison.

    A batch out of many rows holds few true neighbours, so this embeds another graph than the global one.

    Args:
        vectors: all N rows.
        batch_size: edges of a step, all ranks together; M / K rows are drawn for M edges.
        n_neighbors: K, neighbours of each row inside the batch.
        kind: affinity of the edges.
        scale_neighbor: neighbour whose distance is the local scale.
        laplacian: ``random_walk`` gives rows their degree in the batch as mass, ``unnormalized`` equal mass.
        seed: seed of the run.

    Attributes:
        growth: how many times as many edges a step has, to be set between batches.

    Reference: Shaham et al., SpectralNet, ICLR 2018, section 3.1.
    """

    def __init__(
        self,
        vectors: Vectors,
        *,
        batch_size: int,
        n_neighbors: int,
        kind: AffinityKind,
        scale_neighbor: int,
        laplacian: Laplacian,
        seed: int,
    ) -> None:
        self.vectors, self.laplacian, self.seed = vectors, laplacian, seed
        self.n_neighbors, self.kind, self.scale_neighbor = n_neighbors, kind, scale_neighbor
        self.rank, self.world_size = collectives.rank(), collectives.world_size()
        self.start, self.stop = share(vectors.n_rows, self.rank, self.world_size)
        first, last = share(batch_size, self.rank, self.world_size)
        self.n_edges, self.growth = last - first, 1

    def batch(self, step: int) -> EdgeBatch:
        """Return the batch of ``step`` on this rank; all its edges lie inside the batch."""
        generator = np.random.default_rng((self.seed, step, self.rank))
        n = min(max(self.growth * self.n_edges // self.n_neighbors, self.n_neighbors + 1), self.stop - self.start)
        rows = self.start + np.sort(generator.choice(self.stop - self.start, n, replace=False))
        vectors = torch.from_numpy(self.vectors.gather(rows))
        heads, tails, weights = batch_affinity(
            vectors, n_neighbors=min(self.n_neighbors, n - 1), kind=self.kind, scale_neighbor=self.scale_neighbor
        )
        weights = weights.double() / (weights.double().sum() * self.world_size)
        if self.laplacian == "unnormalized":
            mass = torch.full((n,), 1.0 / (n * self.world_size), dtype=torch.float64)
        else:
            mass = torch.zeros(n, dtype=torch.float64)
            mass.index_add_(0, heads, weights / 2).index_add_(0, tails, weights / 2)
        return EdgeBatch(vectors, heads, tails, weights, mass)

"""Batches of rows, and of pairs of rows, without state: (seed, step) decide the global batch, ranks take their share.

P ranks therefore take the very step of one. Rows are drawn one from each of B equal parts of the dataset, so they
come in ascending order, reads are spread evenly, and nothing of size N is held.

Shape letters: N rows, B rows of a batch, M pairs of a batch, D features, K neighbours.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distspectral.comm import collectives
from distspectral.embedding.transfer import gathered
from distspectral.errors import NoEdgesError
from distspectral.graph.store import Graph
from distspectral.objectives.batches import PairBatch, ReconstructionBatch, TeachingBatch
from distspectral.storage.rows.vectors import Vectors
from distspectral.training.sampling import filled_up, share, stratified

HELD_OUT = 20
"""One row in so many is never learned from by what learns from rows, so that what was learned can be judged by it."""

MANY_TIMES = 2
"""So often a row of a small set is drawn into a batch at least, for it to pass the network once and weigh more."""


def held_out_rows(n_rows: int) -> range:
    """Return the rows that trainings on rows never see, ascending; all of them where there are too few to spare any."""
    return range(HELD_OUT - 1, n_rows, HELD_OUT) if n_rows >= HELD_OUT else range(n_rows)


def learned_rows(n_rows: int, n: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """Return ``n`` rows that are not held out, ascending, one from each n-th of the dataset."""
    drawn = (stratified(n, generator) * (n_rows - n_rows // HELD_OUT)).astype(np.int64)
    return drawn + drawn // (HELD_OUT - 1)


class RowSampler:
    """Draws rows uniformly, those held out excepted, and, if asked, blanks out some of their features.

    Args:
        vectors: all N rows.
        batch_size: rows of a step, all ranks together.
        corruption: share of each row's features replaced by their means.
        seed: seed of the run.
    """

    def __init__(self, vectors: Vectors, *, batch_size: int, corruption: float, seed: int) -> None:
        self.vectors, self.batch_size, self.corruption, self.seed = vectors, batch_size, corruption, seed
        self.means = torch.from_numpy(np.asarray(vectors.mean, dtype=np.float32))
        self.rank, self.world_size = collectives.rank(), collectives.world_size()

    def batch(self, step: int) -> ReconstructionBatch:
        """Return this rank's rows of ``step``, ascending."""
        generator = np.random.default_rng((self.seed, step))
        n_rows = self.vectors.n_rows
        rows = learned_rows(n_rows, self.batch_size, generator)
        first, last = share(self.batch_size, self.rank, self.world_size)
        targets = torch.from_numpy(self.vectors.gather(rows[first:last]))
        return self._corrupted(targets, first, generator)

    def _corrupted(self, targets: Tensor, first: int, generator: np.random.Generator) -> ReconstructionBatch:
        """Return rows (B, D), the first of which is number ``first`` of the global batch, some features blanked out."""
        if self.corruption == 0:
            return ReconstructionBatch(targets, targets)
        chances = generator.random((self.batch_size, self.vectors.dim), dtype=np.float32)
        blank = torch.from_numpy(chances[first : first + len(targets)] < self.corruption)
        return ReconstructionBatch(torch.where(blank, self.means, targets), targets)


class TaughtRowSampler:
    """Draws rows uniformly, with the functions that are to be learned; judged is by rows that are held out.

    Args:
        vectors: all N rows as the network sees them.
        functions: (N, E) of a ``polish`` artifact, the mass first.
        n_functions: P of them that are taught, the constant one included.
        batch_size: rows of a step, all ranks together.
        n_steps: of the training at most; batches from there on judge.
        seed: seed of the run.
    """

    def __init__(
        self, vectors: Vectors, functions: Vectors, n_functions: int, *, batch_size: int, n_steps: int, seed: int
    ) -> None:
        self.vectors, self.functions, self.n_functions = vectors, functions, n_functions
        self.batch_size, self.n_steps, self.seed = batch_size, n_steps, seed
        self.first, self.last = share(batch_size, collectives.rank(), collectives.world_size())

    def batch(self, step: int) -> TeachingBatch:
        """Return this rank's rows of ``step``, ascending."""
        rows = taught_rows(self.functions.n_rows, self.batch_size, self.n_steps, self.seed, step)[
            self.first : self.last
        ]
        places, counts = counted(rows)
        columns = torch.from_numpy(self.functions.gather(rows[places]))
        return TeachingBatch.of(gathered(self.vectors, rows[places]), columns, counts, self.n_functions)


def counted(rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return which of a batch's rows pass the network, as places (U,), and how often each of them counts (U,).

    All of them pass, unless they are few rows drawn :data:`MANY_TIMES`.
    """
    _, places, counts = np.unique(rows, return_index=True, return_counts=True)
    if MANY_TIMES * len(places) > len(rows):
        return np.arange(len(rows)), np.ones(len(rows), np.int64)
    return places, counts


def taught_rows(n_rows: int, batch_size: int, n_steps: int, seed: int, step: int) -> NDArray[np.int64]:
    """Return the rows (B,) of a step, ascending: never those held out, until these judge what was learned."""
    generator = np.random.default_rng((seed, step))
    if step < n_steps:
        return learned_rows(n_rows, batch_size, generator)
    held_out = held_out_rows(n_rows)
    places = (stratified(batch_size, generator) * len(held_out)).astype(np.int64)
    return held_out.start + held_out.step * places


class PairSampler:
    """Draws as many pairs of near neighbours as of random rows that are no neighbours.

    Args:
        vectors: all N rows.
        graph: neighbours of all N rows, the nearest first.
        batch_size: M, pairs of a step, all ranks together.
        n_positives: a row's partner is one of so many nearest neighbours.
        seed: seed of the run.
    """

    def __init__(self, vectors: Vectors, graph: Graph, *, batch_size: int, n_positives: int, seed: int) -> None:
        self.vectors, self.graph, self.seed = vectors, graph, seed
        self.n_pairs, self.n_positives = batch_size // 2, min(n_positives, graph.n_neighbors)
        self.rank, self.world_size = collectives.rank(), collectives.world_size()

    def batch(self, step: int) -> PairBatch:
        """Return this rank's pairs of ``step``; pairs that turn out to be no pairs are left out.

        Raises:
            NoEdgesError: none of the step's rows has a neighbour.
        """
        generator = np.random.default_rng((self.seed, step))
        heads, tails = self._neighbors(generator)
        rows, negatives = self._negatives(generator)
        require_pairs(len(heads), self.n_pairs, self.n_positives)
        first, last = share(len(heads), self.rank, self.world_size)
        begin, end = share(len(rows), self.rank, self.world_size)
        pairs = np.concatenate([heads[first:last], rows[begin:end], tails[first:last], negatives[begin:end]])
        distinct, inverse = np.unique(pairs, return_inverse=True)
        return pair_batch(gathered(self.vectors, filled_up(distinct)), inverse.reshape(2, -1), last - first)

    def _neighbors(self, generator: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return (M,) rows and one near neighbour of each, missing slots left out."""
        rows, column = neighbors_asked(self.graph.n_rows, self.n_pairs, self.n_positives, generator)
        neighbors, affinities = (part[np.arange(len(rows)), column] for part in self.graph.gather(rows))
        found = (affinities > 0) & (neighbors != rows)
        return rows[found], neighbors[found]

    def _negatives(self, generator: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return (M,) rows and a random row for each, those known as neighbours of one another left out."""
        rows, others = negatives_asked(self.graph.n_rows, self.n_pairs, generator)
        known = (self.graph.gather(rows)[0] == others[:, None]) | (self.graph.gather(others)[0] == rows[:, None])
        apart = ~known.any(1) & (rows != others)
        return rows[apart], others[apart]


def neighbors_asked(
    n_rows: int, n_pairs: int, n_positives: int, generator: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return rows (M,), ascending, and which of its near neighbours each is paired with."""
    rows = (stratified(n_pairs, generator) * n_rows).astype(np.int64)
    return rows, generator.integers(n_positives, size=n_pairs)


def negatives_asked(
    n_rows: int, n_pairs: int, generator: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return rows (M,), ascending, and a random row for each, whatever they are to each other."""
    rows = (stratified(n_pairs, generator) * n_rows).astype(np.int64)
    return rows, generator.integers(n_rows, size=n_pairs)


def require_pairs(n_found: int, n_asked: int, n_positives: int) -> None:
    """Refuse a step without pairs of neighbours.

    Raises:
        NoEdgesError: there are none.
    """
    if not n_found:
        raise NoEdgesError(
            f"none of {n_asked} rows drawn has an edge of positive weight to one of its {n_positives} "
            "nearest neighbours: the graph is empty; check data.column, and that the rows are not all alike",
            ["data.column"],
        )


def pair_batch(vectors: Tensor, ends: NDArray[np.int64], n_neighbors: int) -> PairBatch:
    """Return pairs of rows.

    Args:
        vectors: (B, D), each row once and the last one maybe again.
        ends: (2, M) row in ``vectors`` of the first and the second of each pair.
        n_neighbors: how many of the pairs, the first ones, are neighbours.
    """
    first, second = torch.from_numpy(ends)
    return PairBatch(vectors, first, second, torch.arange(len(first)) < n_neighbors)

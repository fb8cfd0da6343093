"""Which rows the batches of a training consist of, told shard by shard of the graph, before it begins.

2,000 steps of 1,024 edges touch a ten-thousandth of the edges of a billion rows. So their rows can be drawn first, and
gathered once; nobody then needs all rows, nor the graph, to train. Random numbers are those of the samplers that read
all of it, and so are the batches: of edges, those of one rank.

A batch consists of R records, each of which is a row; record r of batch t has the number t R + r.

Shape letters: N rows, M edges or pairs of a batch, R records of a batch, n records drawn from a shard.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from distspectral.graph.store import Graph, MappedGraph
from distspectral.training.growth import N_JUDGED
from distspectral.training.map_sampling import RootAffinities, negatives_of
from distspectral.training.row_sampling import learned_rows, negatives_asked, neighbors_asked, taught_rows
from distspectral.training.sampling import cumulative_affinity, edges_at, stratified

NUMBER_BYTES = 8
"""Of a row's number, beside its vector."""
WORTHWHILE = 2
"""Times the bytes of the batches that the rows and the graph must have, for ``batches: auto`` to draw."""


class Drawn(NamedTuple):
    """Records (n,) and the row (n,) that each of them is."""

    records: NDArray[np.int64]
    rows: NDArray[np.int64]


class RowsOfShard(NamedTuple):
    """Consecutive rows, and what lies before them.

    Attributes:
        start: number of the first of them.
        stop: behind the last.
        graph: their edges alone, rows numbered from 0; None where the objective has no graph.
        affinity: of all rows before these, of these as well, of all rows.
    """

    start: int
    stop: int
    graph: Graph | None = None
    affinity: tuple[float, float, float] = (0.0, 0.0, 0.0)


class Draws(Protocol):
    """What an objective draws.

    Attributes:
        by_affinity: whether a shard must know the affinity of those before it.
    """

    by_affinity: ClassVar[bool]

    @property
    def n_records(self) -> int:
        """R."""

    @property
    def n_batches(self) -> int:
        """Those of all steps, and those by which batches are judged."""

    def graph(self, mapped: MappedGraph) -> Graph:
        """Return the edges of a shard with the affinities by which they are drawn."""

    def of_shard(self, shard: RowsOfShard) -> Drawn:
        """Return the records that begin in the shard, in no order; the rows may be any."""


def bytes_drawn(drawn: Draws, vector_bytes: float) -> float:
    """Return the bytes of all batches, of rows of ``vector_bytes`` each."""
    return drawn.n_batches * drawn.n_records * (vector_bytes + NUMBER_BYTES)


def are_drawn(batches: Literal["auto", "mapped", "drawn"], drawn: float, mapped: float) -> bool:
    """Return whether batches are drawn before a training that could read all rows and the graph in place of them.

    Args:
        batches: as the config asks for them.
        drawn: bytes of the batches.
        mapped: bytes of the rows and the graph.
    """
    return batches == "drawn" or (batches == "auto" and WORTHWHILE * drawn <= mapped)


@dataclasses.dataclass(frozen=True)
class _Draws:
    """What all objectives say of their batches.

    Args:
        n_rows: N.
        batch_size: items of a step, all ranks together.
        n_steps: of the training at most.
        seed: of the run.
    """

    n_rows: int
    batch_size: int
    n_steps: int
    seed: int

    by_affinity: ClassVar[bool] = False

    @property
    def n_batches(self) -> int:
        """Those of all steps, and those by which batches are judged."""
        return self.n_steps + N_JUDGED

    def graph(self, mapped: MappedGraph) -> Graph:
        """Return the edges of a shard with the affinities by which they are drawn: their own."""
        return mapped


class RowDraws(_Draws):
    """Rows that are not held out: a record is one. See :class:`~distspectral.training.row_sampling.RowSampler`."""

    def rows(self, batch: int) -> NDArray[np.int64]:
        """Return the rows (R,) of a batch, ascending."""
        return learned_rows(self.n_rows, self.batch_size, np.random.default_rng((self.seed, batch)))

    @property
    def n_records(self) -> int:
        """R."""
        return self.batch_size

    def of_shard(self, shard: RowsOfShard) -> Drawn:
        """Return the records that lie in the shard."""
        found = []
        for batch in range(self.n_batches):
            rows = self.rows(batch)
            first, last = np.searchsorted(rows, (shard.start, shard.stop))
            found.append(Drawn(batch * self.n_records + np.arange(first, last), rows[first:last]))
        return _joined(found)


class TaughtRowDraws(RowDraws):
    """Likewise, held out ones to judge by. See :class:`~distspectral.training.row_sampling.TaughtRowSampler`."""

    def rows(self, batch: int) -> NDArray[np.int64]:
        """Return the rows (R,) of a batch, ascending."""
        return taught_rows(self.n_rows, self.batch_size, self.n_steps, self.seed, batch)


class EdgeDraws(_Draws):
    """Edges by affinity: records 2 i and 2 i + 1 are the ends of edge i.

    See :class:`~distspectral.training.sampling.EdgeSampler`.
    """

    by_affinity: ClassVar[bool] = True

    @property
    def n_records(self) -> int:
        """R."""
        return 2 * self.batch_size

    def of_shard(self, shard: RowsOfShard) -> Drawn:
        """Return both records of the edges whose first end lies in the shard."""
        assert shard.graph is not None, "edges are those of a graph"
        before, after, total = shard.affinity
        records, targets = [], []
        for batch in range(self.n_batches):
            generator = np.random.default_rng((self.seed, batch, 0))
            target = np.minimum(stratified(self.batch_size, generator) * total, np.nextafter(total, 0.0))
            first, last = np.searchsorted(target, (before, after))
            records.append(batch * self.n_records + 2 * np.arange(first, last))
            targets.append(target[first:last] - before)
        heads = np.concatenate(records)
        if not len(heads):
            return Drawn(heads, heads)
        cumulative = cumulative_affinity(shard.graph, 0, shard.stop - shard.start)
        rows, others = edges_at(shard.graph, cumulative, 0, np.concatenate(targets))
        return _joined([Drawn(heads, rows + shard.start), Drawn(heads + 1, others)])


@dataclasses.dataclass(frozen=True)
class MapDraws(EdgeDraws):
    """Edges by the root of their affinity, and behind them random rows.

    See :class:`~distspectral.training.map_sampling.MapSampler`.

    Args:
        n_negatives: S, random rows of a batch, the same for all ranks.
    """

    n_negatives: int = 1

    @property
    def n_records(self) -> int:
        """R."""
        return 2 * self.batch_size + self.n_negatives

    def graph(self, mapped: MappedGraph) -> Graph:
        """Return the edges of a shard with the affinities by which they are drawn: the roots of their own."""
        return RootAffinities(mapped)

    def of_shard(self, shard: RowsOfShard) -> Drawn:
        """Return both records of the edges whose first end lies in the shard, and the random rows in it."""
        found = [super().of_shard(shard)]
        for batch in range(self.n_batches):
            rows = negatives_of(self.n_rows, self.n_negatives, self.seed, batch)
            first, last = np.searchsorted(rows, (shard.start, shard.stop))
            behind = batch * self.n_records + 2 * self.batch_size
            found.append(Drawn(behind + np.arange(first, last), rows[first:last]))
        return _joined(found)


@dataclasses.dataclass(frozen=True)
class PairDraws(_Draws):
    """Pairs of near neighbours, and as many of random rows: records 2 i and 2 i + 1 are those of pair i.

    A pair that turns out to be none has the same row twice. A negative pair is one where the first row does not
    list the second: that the second lists the first, as it does in K of N draws, is let pass, for its list lies in
    another shard. See :class:`~distspectral.training.row_sampling.PairSampler`.

    Args:
        n_positives: a row's partner is one of so many nearest neighbours.
    """

    n_positives: int = 1

    @property
    def n_pairs(self) -> int:
        """M, of either kind."""
        return self.batch_size // 2

    @property
    def n_records(self) -> int:
        """R."""
        return 4 * self.n_pairs

    def of_shard(self, shard: RowsOfShard) -> Drawn:
        """Return both records of the pairs whose first row lies in the shard."""
        assert shard.graph is not None, "neighbours are those of a graph"
        n_positives = min(self.n_positives, shard.graph.n_neighbors)
        near, far = [], []
        for batch in range(self.n_batches):
            generator, first = np.random.default_rng((self.seed, batch)), batch * self.n_records
            asked = neighbors_asked(self.n_rows, self.n_pairs, n_positives, generator)
            near.append(_inside(shard, first, *asked))
            asked = negatives_asked(self.n_rows, self.n_pairs, generator)
            far.append(_inside(shard, first + 2 * self.n_pairs, *asked))
        heads, rows, columns = (np.concatenate(parts) for parts in zip(*near, strict=True))
        neighbors, affinities = (part[np.arange(len(rows)), columns] for part in shard.graph.gather(rows - shard.start))
        partners = np.where(affinities > 0, neighbors, rows)
        firsts, ones, others = (np.concatenate(parts) for parts in zip(*far, strict=True))
        known = (shard.graph.gather(ones - shard.start)[0] == others[:, None]).any(1)
        negatives = np.where(known, ones, others)
        return _joined(
            [Drawn(heads, rows), Drawn(heads + 1, partners), Drawn(firsts, ones), Drawn(firsts + 1, negatives)]
        )


def _inside(
    shard: RowsOfShard, first: int, rows: NDArray[np.int64], asked: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return the records of those pairs of a batch that begin in the shard, their rows, and what else is asked.

    Args:
        shard: where.
        first: record of the first pair.
        rows: (M,) ascending.
        asked: (M,) likewise.
    """
    begin, end = np.searchsorted(rows, (shard.start, shard.stop))
    return first + 2 * np.arange(begin, end), rows[begin:end], asked[begin:end]


def _joined(parts: Sequence[Drawn]) -> Drawn:
    return Drawn(*(np.concatenate(column) for column in zip(*parts, strict=True)))

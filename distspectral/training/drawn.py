"""Training on batches that were drawn and gathered before: a rank reads its part of each, one after the other.

Shape letters: N rows, D features, M edges or pairs of a batch, R records of a batch, n records.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from distspectral.comm import collectives
from distspectral.objectives.batches import EdgeBatch, MapBatch, PairBatch, ReconstructionBatch, TeachingBatch
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.rows.shard_rows import ShardRows
from distspectral.storage.rows.vectors import Vectors
from distspectral.training.map_sampling import map_batch
from distspectral.training.row_sampling import RowSampler, counted, pair_batch, require_pairs
from distspectral.training.sampling import edge_batch, filled_up, share

VECTOR, ROW = "vector", "row"
"""Columns of the records."""


class DrawnVectors:
    """All rows as they are, and beside them the records of all batches.

    Args:
        vectors: (N, D), of which a training on drawn batches reads the moments alone.
        artifact: finished, written by :func:`distspectral.training.drawing.draw`.

    Attributes:
        n_records: R.
        n_batches: that were drawn.
    """

    def __init__(self, vectors: Vectors, artifact: Artifact) -> None:
        manifest = artifact.manifest()
        self.vectors, self.n_rows, self.dim = vectors, vectors.n_rows, vectors.dim
        self.mean, self.scale = vectors.mean, vectors.scale
        self.gather, self.block = vectors.gather, vectors.block
        self.n_records, self.n_batches = manifest.properties["n_records"], manifest.properties["n_batches"]
        self._records = ShardRows(artifact, manifest.shards, [VECTOR], reread=True)
        self._rows = ShardRows(artifact, manifest.shards, [ROW], reread=True)

    def records(self, batch: int, first: int, last: int) -> NDArray[np.float32]:
        """Return the rows (n, D) of the records ``first`` to ``last`` of a batch, as a copy or a read-only view."""
        found = self._records.block(*self._places(batch, first, last))[0]
        return found.astype(np.float32, copy=False)

    def rows(self, batch: int, first: int, last: int) -> NDArray[np.int64]:
        """Return the numbers (n,) of these rows."""
        return self._rows.block(*self._places(batch, first, last))[0][:, 0].astype(np.int64)

    def _places(self, batch: int, first: int, last: int) -> tuple[int, int]:
        assert 0 <= batch < self.n_batches, (batch, self.n_batches)
        return batch * self.n_records + first, batch * self.n_records + last


class DrawnRowSampler(RowSampler):
    """See :class:`~distspectral.training.row_sampling.RowSampler`, whose batches these are.

    Args:
        vectors: all N rows and the batches of :class:`~distspectral.training.draws.RowDraws`.
        batch_size: rows of a step, all ranks together.
        corruption: share of each row's features replaced by their means.
        seed: seed of the run.
    """

    vectors: DrawnVectors

    def batch(self, step: int) -> ReconstructionBatch:
        """Return this rank's rows of ``step``, ascending."""
        generator = np.random.default_rng((self.seed, step))
        generator.random(self.batch_size)  # by which the rows were drawn
        first, last = share(self.batch_size, self.rank, self.world_size)
        targets = torch.from_numpy(np.array(self.vectors.records(step, first, last)))
        return self._corrupted(targets, first, generator)


class DrawnTaughtRowSampler:
    """Gives rows with the functions that are to be learned.

    Args:
        vectors: all N rows, the functions beside them, and the batches of
            :class:`~distspectral.training.draws.TaughtRowDraws`.
        rows: gives the rows (R,) of a step, those draws'.
        n_seen: D, features that the network sees; the columns of a ``polish`` artifact are behind them.
        n_functions: P that are taught, the constant one included.
    """

    def __init__(
        self, vectors: DrawnVectors, rows: Callable[[int], NDArray[np.int64]], n_seen: int, n_functions: int
    ) -> None:
        self.vectors, self.rows, self.n_seen, self.n_functions = vectors, rows, n_seen, n_functions
        self.first, self.last = share(vectors.n_records, collectives.rank(), collectives.world_size())

    def batch(self, step: int) -> TeachingBatch:
        """Return this rank's rows of ``step``, ascending."""
        places, counts = counted(self.rows(step)[self.first : self.last])
        found = torch.from_numpy(np.array(self.vectors.records(step, self.first, self.last))[places])
        seen, columns = found[:, : self.n_seen].contiguous(), found[:, self.n_seen :]
        return TeachingBatch.of(seen, columns, counts, self.n_functions)


class DrawnEdgeSampler:
    """Gives edges of the global graph, drawn with probability proportional to affinity.

    A batch that has grown takes others in from elsewhere in the training, never one twice in the same part of it.

    Args:
        vectors: all N rows and the batches of :class:`~distspectral.training.draws.EdgeDraws`.
        n_steps: of the training at most.

    Attributes:
        growth: how many times as many edges a step has, to be set between batches.
    """

    def __init__(self, vectors: DrawnVectors, n_steps: int) -> None:
        self.vectors, self.n_steps, self.growth = vectors, n_steps, 1
        self.first, self.last = share(vectors.n_records // 2, collectives.rank(), collectives.world_size())

    def batch(self, step: int) -> EdgeBatch:
        """Return the edges of ``step`` on this rank."""
        others = [(step + part * self.n_steps // self.growth) % self.n_steps for part in range(1, self.growth)]
        places = [(batch, 2 * self.first, 2 * self.last) for batch in (step, *others)]
        rows = np.concatenate([self.vectors.rows(*place) for place in places])
        _, first, inverse = np.unique(rows, return_index=True, return_inverse=True)
        found = np.concatenate([self.vectors.records(*place) for place in places])[filled_up(first)]
        n_edges = self.growth * self.vectors.n_records // 2
        return edge_batch(torch.from_numpy(found), np.ascontiguousarray(inverse.reshape(-1, 2).T), 1.0 / n_edges)


class DrawnMapSampler:
    """Gives edges drawn with probability proportional to affinity, and random rows that all ranks share.

    Args:
        vectors: all N rows and the batches of :class:`~distspectral.training.draws.MapDraws`.
        n_edges: M, of all ranks together.
    """

    def __init__(self, vectors: DrawnVectors, n_edges: int) -> None:
        self.vectors, self.n_edges = vectors, n_edges
        self.first, self.last = share(n_edges, collectives.rank(), collectives.world_size())

    def batch(self, step: int) -> MapBatch:
        """Return the edges of ``step`` on this rank, and the random rows of all."""
        places = [(step, 2 * self.first, 2 * self.last), (step, 2 * self.n_edges, self.vectors.n_records)]
        edges, negatives = (self.vectors.rows(*place) for place in places)
        rows = np.concatenate([edges[::2], edges[1::2], negatives])
        _, first, inverse = np.unique(rows, return_index=True, return_inverse=True)
        ends, others = (self.vectors.records(*place) for place in places)
        found = np.concatenate([ends[::2], ends[1::2], others])[filled_up(first)]
        return map_batch(torch.from_numpy(found), inverse, self.last - self.first, 1.0 / self.n_edges)


class DrawnPairSampler:
    """Gives as many pairs of near neighbours as of random rows that are no neighbours.

    Args:
        vectors: all N rows and the batches of :class:`~distspectral.training.draws.PairDraws`.
        n_positives: a row's partner is one of so many nearest neighbours.
    """

    def __init__(self, vectors: DrawnVectors, n_positives: int) -> None:
        self.vectors, self.n_positives = vectors, n_positives
        self.rank, self.world_size = collectives.rank(), collectives.world_size()

    def batch(self, step: int) -> PairBatch:
        """Return this rank's pairs of ``step``; pairs that turned out to be no pairs are left out.

        Raises:
            NoEdgesError: none of the step's rows has a neighbour.
        """
        n_pairs = self.vectors.n_records // 4
        rows = self.vectors.rows(step, 0, self.vectors.n_records).reshape(2, n_pairs, 2)
        kinds = [np.flatnonzero(kind[:, 0] != kind[:, 1]) for kind in rows]
        require_pairs(len(kinds[0]), n_pairs, self.n_positives)
        pairs, vectors = [], []
        for kind, found in enumerate(kinds):
            first, last = share(len(found), self.rank, self.world_size)
            own = found[first:last] + kind * n_pairs
            if len(own):
                begin, end = 2 * own[0], 2 * own[-1] + 2
                vectors.append(self.vectors.records(step, begin, end).reshape(-1, 2, self.vectors.dim)[own - own[0]])
            pairs.append(rows[kind, found[first:last]])
        ends = np.concatenate(pairs)
        _, places, inverse = np.unique(ends, return_index=True, return_inverse=True)
        found_vectors = np.concatenate(vectors).reshape(-1, self.vectors.dim)[filled_up(places)]
        return pair_batch(
            torch.from_numpy(found_vectors), np.ascontiguousarray(inverse.reshape(-1, 2).T), len(pairs[0])
        )

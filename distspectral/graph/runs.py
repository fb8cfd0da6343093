"""Consecutive shards of a graph or of lists that one task reads, and their edges as they stream by.

Shape letters: N rows, B rows of a block, K neighbours.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from distspectral.graph.links import Links
from distspectral.graph.store import SQUARED_DISTANCES, Edges, MappedGraph, edge_blocks
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.artifact.manifest import Shard

RUN_ROWS = 1 << 17
"""Rows of a run at least, where so many are left: some seconds of one core at most."""
BLOCK_ROWS = 1 << 16
"""Rows whose edges are in memory at a time."""


@dataclasses.dataclass(frozen=True)
class Run:
    """Rows ``start`` to ``stop``, which are those of these shards."""

    start: int
    stop: int
    shards: tuple[Shard, ...]


def shard_runs(shards: Sequence[Shard], run_rows: int = RUN_ROWS) -> list[Run]:
    """Return runs of shards, in row order, that have about so many rows or one shard."""
    runs: list[Run] = []
    start, held = 0, list[Shard]()
    for index, shard in enumerate(shards):
        held.append(shard)
        n_rows = sum(one.n_rows for one in held)
        if n_rows and (n_rows >= run_rows or index == len(shards) - 1):
            runs.append(Run(start, start + n_rows, tuple(one for one in held if one.n_rows)))
            start, held = start + n_rows, []
    return runs


def run_count(n_rows: int, n_shards: int, run_rows: int = RUN_ROWS) -> int:
    """Return how many runs shards of equal size make."""
    return -(-n_shards // math.ceil(run_rows * n_shards / n_rows))


@dataclasses.dataclass(frozen=True)
class Lists:
    """Lists of neighbours in an artifact that may not be finished; picklable.

    Attributes:
        artifact: that holds the shards.
        n_rows: N.
        weights: the column beside the neighbours: affinities, of which 0 is no edge, or squared distances, of which
            infinity is none.
        links: that take the place of some edges.
    """

    artifact: Artifact
    n_rows: int
    weights: str
    links: Links = dataclasses.field(default_factory=Links.none)

    def blocks(self, run: Run) -> Iterator[tuple[int, Edges]]:
        """Yield the first row of block after block, its neighbours (B, K) and what is beside them (B, K)."""
        graph = MappedGraph(self.artifact, run.shards, self.weights, reread=True)
        for first, neighbors, values in edge_blocks(graph, BLOCK_ROWS):
            yield run.start + first, self.links.applied(run.start + first, neighbors, values)

    def ends(self, run: Run) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """Yield the first row of block after block and where its edges lead (B, K): where there is none, to the row."""
        for start, (neighbors, values) in self.blocks(run):
            there = np.isfinite(values) if self.weights == SQUARED_DISTANCES else values > 0
            own = np.arange(start, start + len(neighbors))
            yield start, np.where(there, neighbors, own[:, None])

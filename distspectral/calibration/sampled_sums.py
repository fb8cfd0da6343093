"""The same sums over the edges of sampled rows: a graph of many rows need not be passed by whole.

Only the ends of these edges pass the network. What leads to some of the rows is sought in all lists, for their
residuals; that reads the graph once and no vectors. Nothing here grows with N but that reading.

Shape letters: N rows, n sampled rows, m edges, K neighbours, E functions.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distspectral.calibration.edge_sums import EdgeSums, block_sums, rows_of_block
from distspectral.calibration.residuals import SAMPLE_ROWS, ResidualSample
from distspectral.embedding.few_rows import GatheredGraph
from distspectral.embedding.forward import BLOCK_ROWS, forward
from distspectral.embedding.loading import Loader
from distspectral.graph.stratified import StratifiedRows
from distspectral.mapping import Mapper, in_order
from distspectral.models.networks import SpectralNetwork, torch_device
from distspectral.spectral.rayleigh import Laplacian
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.artifact.manifest import Shard
from distspectral.storage.rows.joined import open_vectors
from distspectral.storage.rows.shard_rows import ShardRows, write_columns

LEAST_ROWS, ROWS_PER_FUNCTION = 1 << 18, 512
"""Rows whose edges are summed: thirty functions come out orthonormal to some hundredths, whatever the rows, and Ritz
values to a hundredth. A quarter of the rows doubles both."""
N_BLOCKS = 64
"""Of the rows: tasks, and samples of their own by which the whole is judged."""
FUNCTION = "function"
PASSING, SUMMING = "embedding ends of edges", "summing sampled edges"


def sampled_rows(n_functions: int) -> int:
    """Return of how many rows the edges are summed that E functions are calibrated by."""
    return max(LEAST_ROWS, ROWS_PER_FUNCTION * n_functions)


def n_ends(n_functions: int, n_neighbors: int) -> int:
    """Return how many rows pass the network, about: those whose edges are summed, and the ends of edges."""
    return (1 + n_neighbors) * sampled_rows(n_functions) + n_neighbors * SAMPLE_ROWS


def is_sampled(n_rows: int, n_functions: int, n_neighbors: int) -> bool:
    """Whether a sample is taken: where its edges have fewer than half as many ends as there are rows."""
    return n_rows > 2 * n_ends(n_functions, n_neighbors)


class Sampled(NamedTuple):
    """What the edges of sampled rows say of all.

    Attributes:
        sums: as they are to be expected over all rows.
        blocks: sums over the rows block by block, for :func:`ritz_errors`.
        residuals: some of the rows with all their edges.
        n_rows: whose edges were summed.
    """

    sums: EdgeSums
    blocks: list[EdgeSums]
    residuals: ResidualSample
    n_rows: int


@dataclasses.dataclass(frozen=True)
class _Block:
    """Some of the sampled rows, and their edges by the ends' places among all ends of the sample.

    Attributes:
        rows: (B,) places of the rows.
        neighbors: (B, K) places of their neighbours.
        affinities: (B, K).
        judged: (J,) of these rows, by number in the block, those whose residuals are wanted.
        numbers: (J,) of these among all such rows.
        heads: (m,) places of the rows that have one of these as neighbour.
        led_to: (m,) which, by number in the block.
        incoming: (m,) affinities.
    """

    rows: NDArray[np.int64]
    neighbors: NDArray[np.int64]
    affinities: NDArray[np.float32]
    judged: NDArray[np.int64]
    numbers: NDArray[np.int64]
    heads: NDArray[np.int64]
    led_to: NDArray[np.int64]
    incoming: NDArray[np.float32]


def sampled_sums(
    vectors: Sequence[Artifact],
    loader: Loader[SpectralNetwork],
    graph: GatheredGraph,
    scratch: Artifact,
    n_functions: int,
    laplacian: Laplacian,
    mapper: Mapper,
) -> Sampled:
    """Return the sums over the edges of :func:`sampled_rows` rows and the residuals' sample.

    Args:
        vectors: finished ``vectors`` artifacts that the network sees, side by side.
        loader: of the network.
        graph: of all rows.
        scratch: where the functions at the ends of edges are written; the caller deletes it.
        n_functions: E.
        laplacian: which.
        mapper: hands out blocks of rows.
    """
    rows = StratifiedRows(graph.n_rows, sampled_rows(n_functions))
    every = math.ceil(len(rows) / SAMPLE_ROWS)
    neighbors, affinities = graph.gather(rows.rows)
    heads, places, incoming = graph.leading_to(rows, every)
    ends = np.unique(np.concatenate([rows.rows, neighbors.reshape(-1), heads]))
    items = [
        (f"part-{index:05d}.arrow", ends[start : start + BLOCK_ROWS])
        for index, start in enumerate(range(0, len(ends), BLOCK_ROWS))
    ]
    task = functools.partial(_pass, vectors=tuple(vectors), loader=loader, scratch=scratch)
    shards = list(in_order(mapper, task, items, PASSING, on_gpu=True))
    bounds = (np.arange(N_BLOCKS + 1) * len(rows) // N_BLOCKS).tolist()
    blocks = []
    for first, last in itertools.pairwise(bounds):
        judged = np.arange(-(-first // every) * every, last, every)
        inside = slice(*np.searchsorted(places, (first, last)))
        blocks.append(
            _Block(
                rows=np.searchsorted(ends, rows.rows[first:last]),
                neighbors=np.searchsorted(ends, neighbors[first:last]),
                affinities=affinities[first:last],
                judged=judged - first,
                numbers=judged // every,
                heads=np.searchsorted(ends, heads[inside]),
                led_to=places[inside] - first,
                incoming=incoming[inside],
            )
        )
    add = functools.partial(_sum, scratch=scratch, shards=shards, laplacian=laplacian)
    residuals, sums = ResidualSample(rows.rows[::every], n_functions), []
    for own, part in in_order(mapper, add, blocks, SUMMING):
        sums.append(own)
        residuals.merge(part)
    return Sampled(sum(sums, EdgeSums.none(n_functions)).of_all(graph.n_rows), sums, residuals, len(rows))


def ritz_errors(
    blocks: Sequence[EdgeSums], rotation: NDArray[np.float64], values: NDArray[np.float64], laplacian: Laplacian
) -> NDArray[np.float64]:
    """Return the standard errors (P,) of Ritz values, by how the blocks of rows differ.

    Args:
        blocks: sums over rows, about as many in each.
        rotation: (E, P) to Ritz functions.
        values: (P,) of these.
        laplacian: which.
    """

    def quotients(matrix: Tensor) -> NDArray[np.float64]:
        return np.asarray((rotation * (matrix.numpy() @ rotation)).sum(axis=0))

    mean_degree = sum(block.affinity for block in blocks) / sum(block.n_rows for block in blocks)
    scale = 1.0 if laplacian == "random_walk" else mean_degree
    mass = [scale * quotients(block.gram) for block in blocks]
    left = [quotients(block.energy) - values * own for block, own in zip(blocks, mass, strict=True)]
    squares = np.square(left).sum(axis=0) * len(blocks) / (len(blocks) - 1)
    return np.asarray(np.sqrt(squares) / np.sum(mass, axis=0))


# ---- tasks -------------------------------------------------------------------------------------------------------


def _pass(
    item: tuple[str, NDArray[np.int64]],
    *,
    vectors: tuple[Artifact, ...],
    loader: Loader[SpectralNetwork],
    scratch: Artifact,
) -> Shard:
    """Write what the network makes of some rows."""
    name, rows = item
    made = forward(loader.on(torch_device("auto")), open_vectors(vectors).gather(rows))
    return write_columns(scratch, name, {FUNCTION: made})


def _sum(
    block: _Block, *, scratch: Artifact, shards: list[Shard], laplacian: Laplacian
) -> tuple[EdgeSums, tuple[NDArray[np.int64], NDArray[np.float64]]]:
    """Return the block's sums and its part of the residuals' sample."""
    functions = ShardRows(scratch, shards, [FUNCTION])
    n_rows, n_neighbors = block.neighbors.shape
    n_functions, affinities = functions.types[0][1], block.affinities.astype(np.float64)

    def at(places: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(functions.gather(places.reshape(-1))[0])

    sums, sample = EdgeSums.none(n_functions), ResidualSample(block.numbers, n_functions)
    step = rows_of_block(n_neighbors, n_functions)
    for first in range(0, n_rows, step):
        part = slice(first, min(first + step, n_rows))
        anchors, others, weights = at(block.rows[part]), at(block.neighbors[part]), affinities[part]
        sums += block_sums(anchors, others, torch.from_numpy(weights.reshape(-1)), laplacian)
        here = slice(*np.searchsorted(block.judged, (part.start, part.stop)))
        local = block.judged[here] - first
        sample.values[here] = anchors[local].double().numpy()
        sample.leading_out(
            np.arange(here.start, here.stop), others.view(len(anchors), n_neighbors, -1)[local], weights[local]
        )
    led_to = np.searchsorted(block.judged, block.led_to)
    sample.leading_in(led_to, at(block.heads), block.incoming.astype(np.float64))
    places, found = sample.part()
    return sums, (block.numbers[places], found)

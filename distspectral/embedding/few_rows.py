"""Some rows among all, by number: tasks read them, their edges and what the network makes of them.

The process that runs a stage neither opens the vectors nor the graph for its samples.
Shape letters: N rows, n rows asked for, K neighbours, P components.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from distspectral.embedding.forward import BLOCK_ROWS, forward
from distspectral.embedding.loading import Loader
from distspectral.graph.runs import Lists, Run, shard_runs
from distspectral.graph.store import AFFINITIES, Edges, MappedGraph
from distspectral.graph.stratified import StratifiedRows
from distspectral.mapping import Mapper, in_order
from distspectral.models.networks import torch_device
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.artifact.manifest import first_rows
from distspectral.storage.rows.by_row import load_rows
from distspectral.storage.rows.joined import open_vectors
from distspectral.storage.rows.packed import read_column

EMBEDDING, READING_EDGES = "embedding a sample", "reading sampled edges"
SEEKING_EDGES = "seeking edges"
READING_NUMBERS, READING_IDS = "reading row numbers", "reading ids"
EDGE_ROWS = 1 << 14
"""Rows whose edges one task reads."""


@dataclasses.dataclass(frozen=True)
class EmbeddedRows:
    """What a network makes of rows; a task embeds one block of them.

    Attributes:
        vectors: finished ``vectors`` artifacts that the network sees, side by side.
        loader: of the network.
        mapper: runs the tasks.
    """

    vectors: tuple[Artifact, ...]
    loader: Loader[Any]
    mapper: Mapper

    def __call__(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the outputs (n, P) at rows (n,), ascending."""
        task = functools.partial(_embed, vectors=self.vectors, loader=self.loader)
        blocks = np.split(rows, range(BLOCK_ROWS, len(rows), BLOCK_ROWS))
        return np.concatenate(list(in_order(self.mapper, task, blocks, EMBEDDING, on_gpu=True)))


class GatheredGraph:
    """A graph whose rows are read at random, by tasks.

    Args:
        graph: finished ``graph`` artifact.
        mapper: runs the tasks.
    """

    def __init__(self, graph: Artifact, mapper: Mapper) -> None:
        manifest = graph.manifest()
        self.n_rows, self.n_neighbors = manifest.n_rows, int(manifest.properties["k"])
        self._graph, self._mapper = graph, mapper

    def gather(self, rows: NDArray[np.int64]) -> Edges:
        """Return neighbours (n, K) and affinities (n, K) of rows (n,)."""
        task = functools.partial(_edges, graph=self._graph)
        blocks = np.split(rows, range(EDGE_ROWS, len(rows), EDGE_ROWS))
        found = in_order(self._mapper, task, blocks, READING_EDGES)
        neighbors, affinities = (np.concatenate(column) for column in zip(*found, strict=True))
        return neighbors, affinities

    def leading_to(
        self, rows: StratifiedRows, every: int = 1
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
        """Return the edges that lead to sampled rows; all lists are read for them.

        Args:
            rows: of this graph.
            every: only the first of so many sampled rows counts, and so on.

        Returns:
            heads: (m,) rows that list a sampled one.
            places: (m,) of these among the sampled rows, ascending.
            affinities: (m,) float32.
        """
        runs = shard_runs(self._graph.manifest().shards)
        lists = Lists(self._graph, self.n_rows, AFFINITIES)
        task = functools.partial(_leading_to, lists=lists, rows=rows, every=every)
        found = in_order(self._mapper, task, runs, SEEKING_EDGES)
        heads, places, affinities = (np.concatenate(column) for column in zip(*found, strict=True))
        order = np.argsort(places, kind="stable")
        return heads[order], places[order], affinities[order]


def numbers_of(artifact: Artifact, name: str, mapper: Mapper) -> Callable[[NDArray[np.int64]], NDArray[Any]]:
    """Return what gives the numbers (n,) of rows (n,) in a file of :mod:`distspectral.storage.rows.by_row`."""

    def gather(rows: NDArray[np.int64]) -> NDArray[Any]:
        (found,) = mapper(functools.partial(load_rows, artifact, name), [rows], READING_NUMBERS)
        return np.asarray(found)

    return gather


def ids_of(vectors: Artifact, rows: NDArray[np.int64], mapper: Mapper) -> pa.Array:
    """Return the ids (n,) of rows (n,), ascending; a task reads those of one shard."""
    shards = vectors.manifest().shards
    starts = first_rows(shards)
    cuts = np.searchsorted(rows, starts)
    items = [
        (shard.name, rows[cuts[index] : cuts[index + 1]] - starts[index])
        for index, shard in enumerate(shards)
        if cuts[index + 1] > cuts[index]
    ]
    return pa.concat_arrays(list(in_order(mapper, functools.partial(_ids, vectors=vectors), items, READING_IDS)))


def _embed(rows: NDArray[np.int64], *, vectors: tuple[Artifact, ...], loader: Loader[Any]) -> NDArray[np.float32]:
    return forward(loader.on(torch_device("auto")), open_vectors(vectors).gather(rows))


def _edges(rows: NDArray[np.int64], *, graph: Artifact) -> Edges:
    return MappedGraph(graph).gather(rows)


def _leading_to(
    run: Run, *, lists: Lists, rows: StratifiedRows, every: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    found = []
    for start, (neighbors, affinities) in lists.blocks(run):
        hits, places = rows.found(neighbors.reshape(-1))
        wanted = places % every == 0
        hits, places = hits[wanted], places[wanted]
        found.append((start + hits // neighbors.shape[1], places, affinities.reshape(-1)[hits]))
    heads, places, weights = (np.concatenate(column) for column in zip(*found, strict=True))
    there = weights > 0
    return heads[there], places[there], weights[there]


def _ids(item: tuple[str, NDArray[np.int64]], *, vectors: Artifact) -> pa.Array:
    name, rows = item
    return read_column(vectors, [name], "id").take(pa.array(rows)).combine_chunks()

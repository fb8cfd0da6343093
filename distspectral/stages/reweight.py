"""New weights for the edges that are there, from distances in a learned space: one streaming pass, no second search.

Shape letters: N rows, B rows of a block, K neighbours, E features.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from distspectral.graph.build import graph_facts
from distspectral.graph.store import AFFINITIES, NEIGHBORS, Graph, MappedGraph, write_rows
from distspectral.mapping import Mapper, local_map
from distspectral.stages.graph import graph_stage
from distspectral.stages.stage import Work
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.artifact.manifest import Manifest, Shard
from distspectral.storage.artifact.output import Output
from distspectral.storage.rows.vectors import MappedVectors, Vectors

SAMPLE_ROWS = 100_000
"""Rows whose edges give the median distance."""

BLOCK_ROWS = 1 << 14

SMALLEST = float(np.finfo(np.float16).tiny)
"""Least weight of an edge, the smallest normal float16: reweighting never cuts the graph apart."""


def reweight(graph: Artifact, features: Artifact, output: Output, mapper: Mapper = local_map) -> Manifest:
    """Write a graph with the edges of ``graph`` and the weights exp(-d^2 / (2 median d^2)).

    Args:
        graph: finished ``graph`` artifact.
        features: finished vectors artifact over the same rows, (N, E), whose distances d count.
        output: where the new ``graph`` artifact goes.
        mapper: hands out the shards that are still missing.

    Returns:
        The manifest; properties as of :func:`distspectral.stages.graph.affinities`.
    """
    source = graph.manifest()
    done = output.begin()
    median = median_squared_distance(MappedGraph(graph), MappedVectors(features))
    starts = np.cumsum([0, *(shard.n_rows for shard in source.shards)]).tolist()
    missing = [
        (shard.name, start, start + shard.n_rows)
        for shard, start in zip(source.shards, starts, strict=False)
        if shard.name not in done
    ]
    task = functools.partial(_reweigh, graph=graph, features=features, output=output.artifact, median=median)
    done |= {shard.name: shard for shard in mapper(task, missing, "reweighting edges")}
    shards = [done[shard.name] for shard in source.shards]
    facts = graph_facts(MappedGraph(output.artifact, shards), of_same_edges=source.properties)
    return output.commit(shards, properties={"n_rows": source.n_rows, **facts}, metrics={})


def squared_distances(rows: NDArray[np.int64], neighbors: NDArray[np.int64], features: Vectors) -> NDArray[np.float32]:
    """Return (B, K) squared distances between ``rows`` (B,) and their ``neighbors`` (B, K)."""
    others = features.gather(neighbors.reshape(-1)).reshape(*neighbors.shape, -1)
    squared: NDArray[np.float32] = np.square(others - features.gather(rows)[:, None, :]).sum(2)
    return squared


def median_squared_distance(graph: Graph, features: Vectors) -> float:
    """Return the median squared distance over the edges of evenly spaced rows, all of them where there are few."""
    rows = np.unique(np.linspace(0, graph.n_rows - 1, SAMPLE_ROWS).astype(np.int64))
    parts = []
    for part in np.array_split(rows, max(1, len(rows) // BLOCK_ROWS)):
        neighbors, affinities = graph.gather(part)
        parts.append(squared_distances(part, neighbors, features)[affinities > 0])
    return float(np.median(np.concatenate(parts)))


def reweighted_rows(
    graph: Graph, features: Vectors, start: int, stop: int, median: float
) -> tuple[NDArray[np.int64], NDArray[np.float16]]:
    """Return neighbours and new affinities, (B, K) each, of rows ``start`` to ``stop``, block by block."""
    all_neighbors = np.empty((stop - start, graph.n_neighbors), np.int64)
    weights = np.empty(all_neighbors.shape, np.float16)
    for first in range(start, stop, BLOCK_ROWS):
        last = min(first + BLOCK_ROWS, stop)
        here = slice(first - start, last - start)
        all_neighbors[here], affinities = graph.block(first, last)
        distances = squared_distances(np.arange(first, last), all_neighbors[here], features)
        weights[here] = new_affinities(distances, affinities, median)
    return all_neighbors, weights


def new_affinities(
    squared_distances: NDArray[np.float32], affinities: NDArray[np.float32], median: float
) -> NDArray[np.float16]:
    """Return (B, K) weights as they are stored; slots without an edge stay without one.

    Args:
        squared_distances: (B, K) in the learned space.
        affinities: (B, K) old weights, positive where there is an edge.
        median: of squared distances over the whole graph.
    """
    weights = np.exp(-squared_distances / max(2 * median, float(np.finfo(np.float32).tiny)))
    stored: NDArray[np.float16] = np.where(affinities > 0, np.maximum(weights, SMALLEST), 0).astype(np.float16)
    return stored


def _reweigh(
    item: tuple[str, int, int], *, graph: Artifact, features: Artifact, output: Artifact, median: float
) -> Shard:
    name, start, stop = item
    edges = MappedGraph(graph)
    neighbors, weights = reweighted_rows(edges, MappedVectors(features), start, stop, median)
    return write_rows(output, name, edges.n_rows, {NEIGHBORS: neighbors, AFFINITIES: weights})


def _run(work: Work) -> Manifest:
    return reweight(work.artifacts["graph"], work.artifacts["features"], work.output, work.mapper)


REWEIGHT = graph_stage("reweight", "Weigh the same edges by Siamese distances.", ("graph", "features"), _run)

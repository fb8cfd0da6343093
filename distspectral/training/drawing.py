"""Batches of a training, drawn before it and gathered once, so that no rank maps the vectors or the graph.

Each shard of the graph picks the edges that fall to it. Each shard of the vectors then hands out the rows asked of it,
in the order of the batches, and these are merged. What is held and moved grows with the training's budget, not with N.

Shape letters: N rows, D features, n records.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from distspectral.graph.store import MappedGraph
from distspectral.mapping import Mapper, in_order, local_map
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.artifact.manifest import Manifest, Shard
from distspectral.storage.artifact.output import Output
from distspectral.storage.artifact.receipts import write_missing
from distspectral.storage.rows.joined import open_vectors
from distspectral.storage.rows.shard_rows import ShardRows, bare, write_columns
from distspectral.storage.rows.vectors import MappedVectors
from distspectral.training.drawn import ROW, VECTOR
from distspectral.training.draws import NUMBER_BYTES, Drawn, Draws, RowsOfShard, are_drawn, bytes_drawn
from distspectral.training.sampling import cumulative_affinity
from distspectral.training.settings import TrainSettings

BATCHES, GATHERED = "batches", "gathered"
"""Folders: of the batches, in the training's; of the rows before they are merged, in that one."""

CHUNK_BYTES = 64 << 20
"""Of consecutive batches in one shard."""


def wants_batches(settings: TrainSettings, vectors: Sequence[Artifact], graph: Artifact | None) -> Draws | None:
    """Return what a training draws before it begins; None where its ranks map the rows and the graph.

    Args:
        settings: of the objective.
        vectors: finished ``vectors`` artifacts, side by side.
        graph: finished ``graph`` artifact, None where the objective needs none.
    """
    drawn = settings.draws(vectors[0].manifest().n_rows)
    if drawn is None:
        return None
    artifacts = [*vectors, *([] if graph is None else [graph])]
    mapped = sum(shard.n_bytes for artifact in artifacts for shard in artifact.manifest().shards)
    return drawn if are_drawn(settings.train.batches, bytes_drawn(drawn, vector_bytes(vectors)), mapped) else None


def vector_bytes(vectors: Sequence[Artifact]) -> int:
    """Return the bytes of a row of vectors side by side, as it is written."""
    opened = [MappedVectors(one) for one in vectors]
    return sum(one.dim for one in opened) * _dtype(opened).itemsize


def draw(
    vectors: Sequence[Artifact], graph: Artifact | None, training: Output, drawn: Draws, mapper: Mapper = local_map
) -> Manifest:
    """Write the batches of a training into its artifact; an interrupted call goes on with the shards it lacks.

    Args:
        vectors: finished ``vectors`` artifacts, side by side.
        graph: finished ``graph`` artifact over the same rows, None where the objective needs none.
        training: where the training writes.
        drawn: what it draws.
        mapper: hands out shards and chunks of batches.
    """
    training.begin()
    artifact = training.artifact.child(BATCHES)
    if artifact.is_current(training.fingerprint):
        return artifact.manifest()
    output = Output(artifact, BATCHES, training.fingerprint, {}, {})
    done = output.begin()
    records, rows = _drawn(vectors, graph, drawn, mapper)
    gathered = Output(artifact.child(GATHERED), GATHERED, training.fingerprint, {}, {})
    parts = _gathered(vectors, gathered, records, rows, mapper)
    of_batch = drawn.n_records * (vector_bytes(vectors) + NUMBER_BYTES)
    chunk = max(1, CHUNK_BYTES // of_batch) * drawn.n_records
    n_all = drawn.n_batches * drawn.n_records
    chunks = [(first, min(first + chunk, n_all)) for first in range(0, n_all, chunk)]
    items = [(f"batches-{index:05d}.arrow", *span, _sliced(parts, *span)) for index, span in enumerate(chunks)]
    shards = write_missing(done, mapper, functools.partial(_merge, artifact), items, "merging batches")
    gathered.artifact.delete()
    properties = {"n_records": drawn.n_records, "n_batches": drawn.n_batches}
    return output.commit([bare(shard) for shard in shards], properties, {})


# ---- which rows ------------------------------------------------------------------------------------------------


def _drawn(
    vectors: Sequence[Artifact], graph: Artifact | None, drawn: Draws, mapper: Mapper
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return all records (n,) and their rows (n,), by row and then by record."""
    of = vectors[0] if graph is None else graph
    shards = [(shard, start) for shard, start in of.manifest().shards_and_first_rows if shard.n_rows]
    affinity = [0.0] * len(shards)
    if drawn.by_affinity:
        assert graph is not None, "affinity is that of edges"
        weigh = functools.partial(_weigh, graph, drawn)
        affinity = list(in_order(mapper, weigh, [shard for shard, _ in shards], "weighing shards"))
    bounds = [0.0, *np.cumsum(affinity).tolist()]
    draws = [(*placed, (*span, bounds[-1])) for placed, span in zip(shards, itertools.pairwise(bounds), strict=True)]
    found = [Drawn(np.empty(0, np.int64), np.empty(0, np.int64))]
    found += mapper(functools.partial(_draw_shard, graph, drawn), draws, "drawing batches")
    records, rows = (np.concatenate(column) for column in zip(*found, strict=True))
    order = np.lexsort((records, rows))
    return records[order], rows[order]


def _weigh(graph: Artifact, drawn: Draws, shard: Shard) -> float:
    """Return a shard's total affinity; one task."""
    edges = drawn.graph(MappedGraph(graph, [shard]))
    return float(cumulative_affinity(edges, 0, edges.n_rows)[-1])


def _draw_shard(graph: Artifact | None, drawn: Draws, item: tuple[Shard, int, tuple[float, float, float]]) -> Drawn:
    """Return what falls to a shard; one task."""
    shard, start, affinity = item
    edges = None if graph is None else drawn.graph(MappedGraph(graph, [shard]))
    return drawn.of_shard(RowsOfShard(start, start + shard.n_rows, edges, affinity))


# ---- their vectors ---------------------------------------------------------------------------------------------


class _Part(NamedTuple):
    """Rows of one shard of the vectors, in the order of their records.

    Attributes:
        shard: that holds them.
        records: (n,) ascending.
        rows: (n,) numbers of the rows.
    """

    shard: Shard
    records: NDArray[np.int64]
    rows: NDArray[np.int64]


def _gathered(
    vectors: Sequence[Artifact],
    output: Output,
    records: NDArray[np.int64],
    rows: NDArray[np.int64],
    mapper: Mapper,
) -> list[_Part]:
    """Write the rows asked of each shard of the vectors, in the order of their records."""
    done = output.begin()
    items, asked = [], []
    for shard, start in vectors[0].manifest().shards_and_first_rows:
        first, last = np.searchsorted(rows, (start, start + shard.n_rows))
        if last > first:
            order = np.argsort(records[first:last], kind="stable")
            own = rows[first:last][order]
            items.append((shard.name, own - start))
            asked.append((records[first:last][order], own))
    task = functools.partial(_gather, tuple(vectors), output.artifact)
    shards = write_missing(done, mapper, task, items, "gathering rows")
    return [_Part(shard, *own) for shard, own in zip(shards, asked, strict=True)]


def _gather(vectors: tuple[Artifact, ...], artifact: Artifact, item: tuple[str, NDArray[np.int64]]) -> Shard:
    """Write some rows of a shard, in the order given; one task."""
    name, rows = item
    opened = open_vectors(vectors, only=name)
    parts = [opened] if isinstance(opened, MappedVectors) else list(opened.parts)
    dtype = _dtype([part for part in parts if isinstance(part, MappedVectors)])
    return write_columns(artifact, name, {VECTOR: opened.gather(rows).astype(dtype, copy=False)})


def _dtype(vectors: Sequence[MappedVectors]) -> np.dtype[Any]:
    """Return the type that holds rows of all vectors exactly."""
    return np.result_type(*(one.dtype for one in vectors))


def _sliced(parts: Sequence[_Part], first: int, last: int) -> list[tuple[int, _Part]]:
    """Return what of each part lies among the records ``first`` to ``last``, and how many of its rows come before."""
    cuts = [np.searchsorted(part.records, (first, last)) for part in parts]
    return [
        (int(begin), _Part(part.shard, part.records[begin:end], part.rows[begin:end]))
        for part, (begin, end) in zip(parts, cuts, strict=True)
        if end > begin
    ]


def _merge(artifact: Artifact, item: tuple[str, int, int, list[tuple[int, _Part]]]) -> Shard:
    """Write some consecutive records; one task."""
    name, first, last, slices = item
    rows, vectors = np.empty((last - first, 1), np.int64), None
    for begin, part in slices:
        gathered = ShardRows(artifact.child(GATHERED), [part.shard], [VECTOR])
        found = gathered.block(begin, begin + len(part.records))[0]
        if vectors is None:
            vectors = np.empty((last - first, found.shape[1]), found.dtype)
        places = part.records - first
        vectors[places], rows[places, 0] = found, part.rows
    assert vectors is not None, "every record is drawn"
    return write_columns(artifact, name, {VECTOR: vectors, ROW: rows})

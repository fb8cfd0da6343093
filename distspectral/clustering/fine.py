"""Leaves below the leaves: groups of rows that edges tie together, for trees finer than functions can tell apart.

They are told of the rows trained on alone. A new row has a leaf of the model, and no finer one.
Shape letters: N rows, M leaves, F fine leaves.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy import sparse

from distspectral.graph.fine import fine_groups
from distspectral.graph.store import Graph, MappedGraph
from distspectral.mapping import Mapper
from distspectral.spectral.tree import Tree, refined
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.artifact.manifest import Shard
from distspectral.storage.rows.packed import read_column

NODES, OWNER = "fine-nodes.parquet", "leaf"
"""The file, and its column that says in which leaf of the model a fine one is."""
ROWS = "fine-{:05d}.parquet"
"""The fine leaf of each row, a file for each shard."""
ROW_GROUPS = "row-groups.npy"
"""The same of all rows for the tasks that add up edges; removed at the end."""
TYING, ADDING_FINE, WRITING = "tying rows", "adding up fine edges", "writing fine leaves"
FINE_ROW_BYTES = 100
"""Of one worker, while the groups are still rows."""
BLOCK_EDGES = 1 << 20
BLOCK_ROWS = 1 << 18


def fine_tree(
    coarse: Tree,
    graph: Artifact,
    by_row: Artifact,
    row_leaves: str,
    n_fine: int,
    ranges: Sequence[tuple[int, int]],
    mapper: Mapper,
) -> tuple[Tree, NDArray[np.int64]]:
    """Return the tree over fine leaves, and the leaf (F,) that each is inside; write the fine leaf (N,) of every row.

    One task ties rows and holds :data:`FINE_ROW_BYTES` of each. The driver holds the affinities between fine leaves of
    one leaf.

    Args:
        coarse: over the M leaves.
        graph: whose edges count.
        by_row: where numbers of all rows are, and fine leaves are written as :data:`ROW_GROUPS`.
        row_leaves: file of the leaf (N,) of every row.
        n_fine: F, wished for; more where too few edges stay inside leaves.
        ranges: of rows, one for each task.
        mapper: runs the tasks.
    """
    tying = functools.partial(_tie, graph, by_row, row_leaves, n_fine, coarse.n_leaves)
    ((rows, owners),) = mapper(tying, [ROW_GROUPS], TYING)
    within, mass = sparse.csr_array((len(rows), len(rows))), np.zeros(len(rows))
    for part, degrees in mapper(functools.partial(_of_range, graph, by_row, owners), ranges, ADDING_FINE):
        within, mass = within + part, mass + degrees
    return refined(coarse, (within + within.T).tocsr(), mass, rows, owners), owners


def _tie(
    graph: Artifact, by_row: Artifact, row_leaves: str, n_fine: int, n_leaves: int, name: str
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Write the fine leaf of every row; return the rows (F,) of each, and the leaf (F,) that it is inside; one task."""
    leaves = by_row.load_array(row_leaves)
    groups = fine_groups(MappedGraph(graph), leaves, n_fine)
    empty = np.setdiff1d(np.arange(n_leaves), leaves)  # leaves without rows are one fine leaf each
    n_found = int(groups.max()) + 1
    rows, owners = np.bincount(groups, minlength=n_found + len(empty)), np.empty(n_found + len(empty), np.int64)
    owners[groups], owners[n_found:] = leaves, empty
    by_row.write_file(name, functools.partial(np.save, arr=groups))
    return rows, owners


def affinities_within(
    graph: Graph, groups: NDArray[np.int64], owners: NDArray[np.int64], start: int, stop: int
) -> tuple[sparse.csr_array, NDArray[np.float64]]:
    """Return the affinity (F, F) from fine leaf to fine leaf of one leaf, and mass (F,), of the rows [start, stop).

    Args:
        graph: of all rows.
        groups: (N,) fine leaf of every row.
        owners: (F,) the leaf of each.
        start: first row.
        stop: behind the last row.
    """
    n_fine, step = len(owners), max(1, BLOCK_EDGES // graph.n_neighbors)
    found, mass = sparse.csr_array((n_fine, n_fine)), np.zeros(n_fine)
    for first in range(start, stop, step):
        last = min(first + step, stop)
        neighbors, affinities = graph.block(first, last)
        heads, tails = np.repeat(groups[first:last], neighbors.shape[1]), groups[neighbors.ravel()]
        weights = affinities.ravel().astype(float)
        mass += np.bincount(heads, weights, n_fine) + np.bincount(tails, weights, n_fine)
        inside = owners[heads] == owners[tails]
        ends = (heads[inside], tails[inside])
        found += sparse.coo_array((weights[inside], ends), (n_fine, n_fine)).tocsr()
    return found, mass


def _of_range(
    graph: Artifact, by_row: Artifact, owners: NDArray[np.int64], rows: tuple[int, int]
) -> tuple[sparse.csr_array, NDArray[np.float64]]:
    """Return :func:`affinities_within` of a range of rows; one task."""
    return affinities_within(MappedGraph(graph), by_row.load_array(ROW_GROUPS), owners, *rows)


def write_rows(vectors: Artifact, artifact: Artifact, by_row: Artifact, mapper: Mapper) -> list[str]:
    """Write the fine leaf of every row, ``id`` and ``fine``, a Parquet file per shard; return their names."""
    items = [(ROWS.format(index), *placed) for index, placed in enumerate(vectors.manifest().shards_and_first_rows)]
    list(mapper(functools.partial(_write_shard, vectors, artifact, by_row), items, WRITING))
    return [name for name, _, _ in items]


def _write_shard(vectors: Artifact, artifact: Artifact, by_row: Artifact, item: tuple[str, Shard, int]) -> None:
    """Write the fine leaves of one shard's rows; one task."""
    name, shard, first = item
    ids = read_column(vectors, [shard.name], "id")
    part = by_row.load_array(ROW_GROUPS)[first : first + shard.n_rows]
    schema = pa.schema([("id", ids.type), ("fine", pa.int32())])

    def write(sink: IO[bytes]) -> None:
        with pq.ParquetWriter(sink, schema, compression="zstd") as writer:
            for start in range(0, len(part), BLOCK_ROWS):
                own = part[start : start + BLOCK_ROWS].astype(np.int32)
                writer.write_table(pa.table([ids.slice(start, len(own)), own], schema=schema))

    artifact.write_file(name, write)

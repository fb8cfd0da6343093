"""Connected components by tasks, exactly, whatever the order of the rows: nobody holds a number for every row.

Each row points to the smallest row that its edges lead to, or to itself. These pointers make trees, whose roots are a
sixteenth of the rows or fewer; each row learns its root. As long as roots are many, those whose own edges lead to
smaller roots point there, and rows learn their roots anew. The edges then join roots, and what they join is contracted
run by run, and run with run. Numbers of all rows are files (see :mod:`distspectral.storage.rows.by_row`).

Of a million rows in any order 62,700 roots are left by the first pointers, 5,700 by the second, 1,800 by the third.

Reference: Sutton, Ben-Nun, Barak: *Optimizing Parallel Graph Connectivity Computation via Subgraph Sampling*, IPDPS
2018; Shiloach, Vishkin: *An O(log n) parallel connectivity algorithm*, J. Algorithms 1982.

Shape letters: N rows, B rows of a run or block, K neighbours, R roots, C components.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import scipy.sparse
from numpy.typing import NDArray
from scipy.sparse import csgraph

from distspectral.graph.facts import NAMED, largest
from distspectral.graph.runs import Lists, Run
from distspectral.mapping import Mapper
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.artifact.manifest import Shard
from distspectral.storage.rows.arrays import piece_offsets, pieces_at, read_pieces, write_pieces
from distspectral.storage.rows.by_row import ByRow, write_part

FEW_ROOTS = 1 << 20
"""Roots that are contracted as they are."""
FEWER = 0.5
"""Share of the roots that a further round must leave at most, or it was the last."""
FAN_IN = 16
"""Contracted runs that one task contracts to one."""
LABELS_READ = 1 << 20
"""Labels of rows that are looked through at a time."""
FIRST_EDGES = 2
"""Edges of a row that are joined before all others: they join most."""

POINTING, FOLLOWING, JOINING = "pointing rows", "following rows", "joining row numbers"
CONTRACTING, MERGING, NAMING = "contracting edges", "merging components", "naming components"
BY_ROW = (POINTING, FOLLOWING, CONTRACTING, MERGING, NAMING)
"""Tasks whose work grows with the rows."""

STARS, SIZES = 0, 1
"""Pieces of a contracted run's file: roots (n,) beside the smallest (n,) that each is joined with, where that is
another; and components (m,), so named, beside how many rows (m,) of the run each has."""


@dataclasses.dataclass(frozen=True)
class Contracted:
    """What was found.

    Attributes:
        components: C.
        largest: rows of the largest one.
        labels: name of the file with the smallest row (N,) of each row's component; None where there is one component.
        sizes: file with the sizes of all.
    """

    components: int
    largest: int
    labels: str | None
    sizes: Shard


def contracted(
    lists: Lists,
    runs: Sequence[Run],
    rows: ByRow,
    mapper: Mapper,
    *,
    name: str = "component",
    to: Artifact | None = None,
    few_roots: int = FEW_ROOTS,
) -> Contracted:
    """Return the connected components of lists; edges count in both directions.

    Args:
        lists: (N, K).
        runs: of all their shards, in row order.
        rows: where numbers of rows are written.
        mapper: runs the tasks.
        name: that files begin with.
        to: where the labels go, as ``.{name}.npy``, where there are several components; by default beside the others.
        few_roots: see :data:`FEW_ROOTS`.
    """
    labels, n_roots = _followed(lists, runs, rows, mapper, name, 0, None)
    before, turn = lists.n_rows, 0
    while n_roots > few_roots and n_roots <= FEWER * before:
        turn, before = turn + 1, n_roots
        labels, n_roots = _followed(lists, runs, rows, mapper, name, turn, labels)
    task = functools.partial(_contract, lists=lists, artifact=rows.artifact, labels=labels)
    found = rows.run(task, _items(f"{name}-edges", runs), mapper, CONTRACTING)
    level = 0
    while level == 0 or len(found) > 1:
        groups = [found[first : first + FAN_IN] for first in range(0, len(found), FAN_IN)]
        items = _items(f"{name}-level-{level}", groups)
        found, level = rows.run(functools.partial(_merge, artifact=rows.artifact), items, mapper, MERGING), level + 1
    (whole,) = found
    n_found, largest = whole.details["components"], whole.details["largest"]
    file = None
    if n_found > 1:
        file = f".{name}.npy"
        task = functools.partial(_name, artifact=rows.artifact, labels=labels, whole=whole)
        parts = rows.run(task, _items(f"{name}-names", runs), mapper, NAMING)
        rows.join(file, parts, mapper, JOINING, to)
    return Contracted(n_found, largest, file, whole)


def component_sizes(artifact: Artifact, found: Contracted) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the components (C,), ascending, each named by its smallest row, and how many rows each has."""
    (sizes,) = _read(artifact, [found.sizes], SIZES)
    return sizes["label"].astype(np.int64), sizes["number"].astype(np.int64)


def small_components(
    lists: Lists, found: Contracted, rows: ByRow, mapper: Mapper, labels: Artifact
) -> list[dict[str, Any]]:
    """Return the largest components but one, as :func:`distspectral.graph.facts.component_facts` names them.

    Args:
        lists: (N, K).
        found: their components.
        rows: where the numbers of rows that found them are.
        mapper: runs the one task.
        labels: where the labels are.
    """
    if found.labels is None:
        return []
    task = functools.partial(_small, sizes=rows.artifact, labels=labels, n_rows=lists.n_rows)
    (named,) = mapper(task, [found], "naming small components")
    return list(named)


def _followed(
    lists: Lists, runs: Sequence[Run], rows: ByRow, mapper: Mapper, name: str, turn: int, labels: str | None
) -> tuple[str, int]:
    """Return the file that says the root (N,) of every row after one more turn, and how many roots there are."""
    parents, roots = (f"{kind}-{name}-{turn}.npy" for kind in ("parents", "roots"))
    point = functools.partial(_point, lists=lists, artifact=rows.artifact, labels=labels)
    rows.join(parents, rows.run(point, _items(f"{name}-parents-{turn}", runs), mapper, POINTING), mapper, JOINING)
    follow = functools.partial(_follow, artifact=rows.artifact, parents=parents)
    found = rows.run(follow, _items(f"{name}-roots-{turn}", runs), mapper, FOLLOWING)
    rows.join(roots, found, mapper, JOINING)
    return roots, sum(shard.details["roots"] for shard in found)


def _items(kind: str, items: Sequence[Any]) -> list[tuple[str, Any]]:
    return [(f"{kind}-{index:05d}.arrow", item) for index, item in enumerate(items)]


# ---- tasks -------------------------------------------------------------------------------------------------------


def _point(item: tuple[str, Run], *, lists: Lists, artifact: Artifact, labels: str | None) -> Shard:
    """Write where each row of a run points: to no larger row, and to none of the run that itself points on."""
    name, run = item
    known = None if labels is None else artifact.load_array(labels)
    parents = np.empty(run.stop - run.start, _dtype(lists.n_rows))
    for start, ends in lists.ends(run):
        own, here = np.arange(start, start + len(ends)), slice(start - run.start, start - run.start + len(ends))
        if known is None:
            parents[here] = np.minimum(own, ends.min(axis=1))
        else:
            parents[here] = known[start : start + len(ends)]
            roots = np.flatnonzero(parents[here] == own)
            parents[here][roots] = np.minimum(own[roots], known[ends[roots]].min(axis=1, initial=lists.n_rows - 1))
    while True:
        inside = np.flatnonzero(parents >= run.start)
        above = parents[parents[inside] - run.start]
        if np.array_equal(above, parents[inside]):
            return write_part(artifact, name, parents)
        parents[inside] = above


def _follow(item: tuple[str, Run], *, artifact: Artifact, parents: str) -> Shard:
    """Write the root of each row of a run; the receipt says how many of its rows are roots."""
    name, run = item
    all_parents = artifact.load_array(parents)
    rows, places = np.unique(all_parents[run.start : run.stop], return_inverse=True)
    while True:
        above = all_parents[rows]
        if np.array_equal(above, rows):
            break
        rows = above
    roots = rows[places]
    n_roots = int(np.count_nonzero(roots == np.arange(run.start, run.stop)))
    return write_part(artifact, name, roots, {"roots": n_roots})


def _contract(item: tuple[str, Run], *, lists: Lists, artifact: Artifact, labels: str) -> Shard:
    """Write which roots the edges of a run join, and how many of its rows have each."""
    name, run = item
    roots = artifact.load_array(labels)
    stars = [_no_stars()]
    for start, ends in lists.ends(run):
        stars.append(_joined_by(np.asarray(roots[start : start + len(ends)]), roots[ends]))
    counted = pc.value_counts(pa.array(roots[run.start : run.stop]))
    sizes = counted.field("values").to_numpy(), counted.field("counts").to_numpy()
    heads, tails = (np.concatenate(column) for column in zip(*stars, strict=True))
    return _write(artifact, name, heads, tails, *sizes)


def _merge(item: tuple[str, list[Shard]], *, artifact: Artifact) -> Shard:
    """Contract contracted runs to one."""
    name, shards = item
    stars = [_no_stars(), *((piece["label"], piece["number"]) for piece in _read(artifact, shards, STARS))]
    sizes = [(piece["label"], piece["number"]) for piece in _read(artifact, shards, SIZES)]
    heads, tails = (np.concatenate(column) for column in zip(*stars, strict=True))
    labels, counts = (np.concatenate(column) for column in zip(*sizes, strict=True))
    return _write(artifact, name, heads, tails, labels, counts)


def _write(
    artifact: Artifact,
    name: str,
    heads: NDArray[Any],
    tails: NDArray[Any],
    labels: NDArray[Any],
    counts: NDArray[np.int64],
) -> Shard:
    """Write the two pieces of roots that edges (n,) join, and of how many rows (m,) roots (m,) have, with repeats."""
    roots, smallest = _stars(heads, tails)
    components, places = np.unique(_renamed(labels, roots, smallest), return_inverse=True)
    sizes = np.bincount(places, counts, len(components)).astype(np.int64)
    pieces = [{"label": roots, "number": smallest}, {"label": components, "number": sizes}]
    return write_pieces(artifact, name, pieces, {"components": len(components), "largest": int(sizes.max())})


def _name(item: tuple[str, Run], *, artifact: Artifact, labels: str, whole: Shard) -> Shard:
    """Write the component of each row of a run."""
    name, run = item
    roots, smallest = _no_stars()
    for piece in _read(artifact, [whole], STARS):
        roots, smallest = piece["label"], piece["number"]
    return write_part(artifact, name, _renamed(artifact.load_array(labels)[run.start : run.stop], roots, smallest))


def _small(found: Contracted, *, sizes: Artifact, labels: Artifact, n_rows: int) -> list[dict[str, Any]]:
    """Return the size and the first rows of the largest components but one."""
    assert found.labels is not None, "there are several"
    names, counts = component_sizes(sizes, found)
    places = largest(counts, min(len(counts), NAMED + 1))[1:]
    of_rows, first = labels.load_array(found.labels), {int(names[place]): list[int]() for place in places}
    for start in range(0, n_rows, LABELS_READ):
        block = np.asarray(of_rows[start : start + LABELS_READ])
        for name, told in first.items():
            told += (start + np.flatnonzero(block == name)[: NAMED - len(told)]).tolist()
        if all(len(told) == min(NAMED, counts[place]) for told, place in zip(first.values(), places, strict=True)):
            break
    return [{"size": int(counts[place]), "rows": first[int(names[place])]} for place in places]


# ---- roots -------------------------------------------------------------------------------------------------------


def _dtype(n_rows: int) -> type[np.uint32 | np.int64]:
    return np.uint32 if n_rows <= np.iinfo(np.uint32).max else np.int64


def _no_stars() -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    return np.empty(0, np.uint32), np.empty(0, np.uint32)


def _joined_by(own: NDArray[Any], others: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the stars, as of :func:`_stars`, of edges from roots (B,) to roots (B, K)."""
    names, codes = _coded(np.concatenate([own, others.ravel()]))
    heads, tails = codes[: len(own)], codes[len(own) :].reshape(others.shape)
    merged = np.arange(len(names), dtype=np.int32)
    for columns in (slice(FIRST_EDGES), slice(FIRST_EDGES, None)):
        ends = merged[tails[:, columns]]
        begins = np.broadcast_to(merged[heads][:, None], ends.shape)
        differ = begins != ends
        merged = _components(begins[differ], ends[differ], len(names))[merged]
    return _of_components(names, merged)


def _stars(heads: NDArray[Any], tails: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the roots, ascending, that edges (n,) join with a smaller one, and the smallest one of each."""
    names, codes = _coded(np.concatenate([heads, tails]))
    return _of_components(names, _components(codes[: len(heads)], codes[len(heads) :], len(names)))


def _coded(values: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.int32]]:
    """Return the different ones of values (n,), in no order, and the place (n,) of each in these."""
    found = pa.array(values).dictionary_encode()
    return found.dictionary.to_numpy(), found.indices.to_numpy()


def _components(heads: NDArray[np.int32], tails: NDArray[np.int32], size: int) -> NDArray[np.int32]:
    edges = scipy.sparse.coo_array((np.ones(len(heads), bool), (heads, tails)), shape=(size, size))
    found: NDArray[np.int32] = csgraph.connected_components(edges, directed=False)[1]
    return found


def _of_components(names: NDArray[Any], components: NDArray[np.int32]) -> tuple[NDArray[Any], NDArray[Any]]:
    order = np.argsort(names)
    names, components = names[order], components[order]
    _, first, places = np.unique(components, return_index=True, return_inverse=True)
    smallest = names[first][places]
    moved = smallest != names
    return names[moved], smallest[moved]


def _renamed(labels: NDArray[Any], roots: NDArray[Any], smallest: NDArray[Any]) -> NDArray[Any]:
    """Return labels (B,) with the smallest root in place of each of ``roots``, which ascend."""
    renamed = np.array(labels)
    if len(roots):
        places = np.searchsorted(roots, renamed).clip(max=len(roots) - 1)
        joined = roots[places] == renamed
        renamed[joined] = smallest[places[joined]]
    return renamed


def _read(artifact: Artifact, shards: Sequence[Shard], piece: int) -> list[dict[str, NDArray[Any]]]:
    places = piece_offsets(shards)[:, piece : piece + 2]
    return list(read_pieces(artifact, pieces_at([shard.name for shard in shards], places)))

"""Links by tasks: the same as :func:`distspectral.graph.links.find_links` finds, and no process holds all rows.

Shape letters: N rows, D features, Q rows that ask, C components, R runs.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distspectral.graph.config import Metric
from distspectral.graph.contraction import BY_ROW, component_sizes, contracted
from distspectral.graph.distances import gathered_queries, under_metric
from distspectral.graph.links import BASE_ROWS, MOST_QUERIES, MOST_ROUNDS, Links, kept_members, logger, nearest_outside
from distspectral.graph.links import with_links as add_links
from distspectral.graph.runs import Lists, Run
from distspectral.mapping import Mapper, in_order
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.rows.by_row import ByRow
from distspectral.storage.rows.vectors import FleetingVectors

COUNTING, ASKING, READING, LINKING = "counting members", "choosing members", "reading members", "linking components"
LINK_TASKS = (*BY_ROW, COUNTING, ASKING, LINKING)
"""Tasks whose work grows with the rows."""
TASK_ROWS = 8 * BASE_ROWS
"""Rows that one task compares with those that ask."""


def find_links(
    lists: Lists, runs: Sequence[Run], vectors: Artifact, metric: Metric, rows: ByRow, mapper: Mapper
) -> Links:
    """Return the links that leave one component.

    Args:
        lists: (N, K) neighbours and squared distances.
        runs: of all their shards, in row order.
        vectors: finished ``vectors`` artifact (N, D).
        metric: of the search.
        rows: where numbers of rows are written.
        mapper: runs the tasks.
    """
    links, before = Links.none(), 0
    for turn in range(MOST_ROUNDS):
        linked = dataclasses.replace(lists, links=links)
        found = contracted(linked, runs, rows, mapper, name=f"round-{turn}")
        before = before or found.components
        if found.labels is None:
            return dataclasses.replace(links, components=before)
        names, sizes = component_sizes(rows.artifact, found)
        order = np.argsort(-sizes, kind="stable")[1:][:MOST_QUERIES]
        labels = rows.artifact, found.labels
        queries, own = _asking(labels, runs, names[order], sizes[order], mapper)
        targets, distances = _nearest(labels, vectors, metric, lists.n_rows, queries, own, mapper)
        links = add_links(links, queries, own, targets, distances)
    logger.warning("%d components are left after %d rounds of links", found.components, MOST_ROUNDS)
    return dataclasses.replace(links, components=before)


def _asking(
    labels: tuple[Artifact, str],
    runs: Sequence[Run],
    components: NDArray[np.int64],
    sizes: NDArray[np.int64],
    mapper: Mapper,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return some rows (Q,) of each component, evenly spread over its row numbers, ascending, and their components.

    Args:
        labels: file of the component (N,) of each row.
        runs: of all rows.
        components: (C,).
        sizes: (C,) rows of each.
        mapper: runs the tasks.
    """
    order = np.argsort(components)
    components, sizes = components[order], sizes[order]
    members = [kept_members(int(size), len(components)) for size in sizes]  # places among the component's rows
    counted = in_order(mapper, functools.partial(_count_members, *labels, components), runs, COUNTING)
    before, items = np.zeros(len(components), np.int64), []
    for run, (found, counts) in zip(runs, counted, strict=True):
        wanted = [members[one][slice(*np.searchsorted(members[one], (before[one], before[one] + count)))] - before[one]
                  for one, count in zip(found.tolist(), counts.tolist(), strict=True)]  # fmt: skip
        before[found] += counts
        kept = [(int(components[one]), places) for one, places in zip(found, wanted, strict=True) if len(places)]
        if kept:
            items.append((run, kept))
    parts = list(mapper(functools.partial(_choose_members, *labels), items, ASKING))
    rows, own = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.argsort(rows)
    return rows[order], own[order]


def _nearest(
    labels: tuple[Artifact, str],
    vectors: Artifact,
    metric: Metric,
    n_rows: int,
    queries: NDArray[np.int64],
    own: NDArray[np.int64],
    mapper: Mapper,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the nearest row (Q,) of another component and its squared distance, ties by row number."""
    (at,) = mapper(functools.partial(_read, vectors, metric), [queries], READING)
    ranges = [(start, min(start + TASK_ROWS, n_rows)) for start in range(0, n_rows, TASK_ROWS)]
    task = functools.partial(_nearest_of_range, *labels, vectors, metric, at, own)
    best, distances = np.full(len(queries), -1, np.int64), np.full(len(queries), np.inf, np.float32)
    for rows, found in mapper(task, ranges, LINKING):
        nearer = (rows >= 0) & ((found < distances) | ((found == distances) & (rows < best)))
        best[nearer], distances[nearer] = rows[nearer], found[nearer]
    return best, distances


# ---- tasks -------------------------------------------------------------------------------------------------------


def _count_members(
    artifact: Artifact, file: str, components: NDArray[np.int64], run: Run
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return which of the components (C,), ascending, a run has how many rows of."""
    names, counts = np.unique(artifact.load_array(file)[run.start : run.stop], return_counts=True)
    places = np.searchsorted(components, names).clip(max=len(components) - 1)
    asked = components[places] == names
    return places[asked], counts[asked]


def _choose_members(
    artifact: Artifact, file: str, item: tuple[Run, list[tuple[int, NDArray[np.int64]]]]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return rows of a run by their component and their place among the run's rows of it, and their components."""
    run, wanted = item
    labels = np.asarray(artifact.load_array(file)[run.start : run.stop])
    order = np.argsort(labels, kind="stable")
    starts = np.searchsorted(labels[order], [component for component, _ in wanted])
    rows = [order[start + places] + run.start for start, (_, places) in zip(starts, wanted, strict=True)]
    own = [np.full(len(places), component, np.int64) for component, places in wanted]
    return np.concatenate(rows), np.concatenate(own)


def _read(vectors: Artifact, metric: Metric, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    return gathered_queries(under_metric(FleetingVectors(vectors), metric), rows)


def _nearest_of_range(
    artifact: Artifact,
    file: str,
    vectors: Artifact,
    metric: Metric,
    at: NDArray[np.float32],
    own: NDArray[np.int64],
    rows: tuple[int, int],
) -> tuple[NDArray[np.int64], NDArray[Any]]:
    labels = np.asarray(artifact.load_array(file)[slice(*rows)])
    return nearest_outside(under_metric(FleetingVectors(vectors), metric), at, own, labels, *rows)

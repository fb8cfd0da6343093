"""The neighbours of all rows through cells: tune, route, solve each cell, merge each block.

Every step hands independent items to a mapper, and each item ends in a file with a receipt, so an interrupted search
continues with the items it lacks. What a step computes depends on global row numbers and seeds alone: neither shards,
workers nor the order of completion can change the graph.

Shape letters: N rows, Q sampled queries, B rows of a block, K neighbours.
"""

from __future__ import annotations

import dataclasses
import functools
import io
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distspectral.graph.config import GraphConfig, Metric
from distspectral.graph.distances import under_metric
from distspectral.graph.search.exact import ExactSolver
from distspectral.graph.search.lists import Neighbors, nearest_of_parts
from distspectral.graph.search.local import CellSolver
from distspectral.graph.search.merging import merge_block, short_rows, write_completed
from distspectral.graph.search.routing import RoutedGroup, WholeGroup, group_sizes, route
from distspectral.graph.search.solving import solve_group
from distspectral.graph.search.tuning import (
    N_CHECKED,
    N_QUERIES,
    Setting,
    most_rows,
    sampled,
    single_cell,
    tune,
)
from distspectral.mapping import Mapper
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.artifact.manifest import Shard
from distspectral.storage.rows.arrays import write_arrays
from distspectral.storage.rows.vectors import FleetingVectors, MappedVectors, Vectors

TRUTH = "truth.npz"
SUMMARY = "summary.json"
COMPLETED = "cell-completed.arrow"
MIN_BLOCK_ROWS = 1 << 14
BLOCK_BYTES = 1 << 26


@dataclasses.dataclass(frozen=True)
class Found:
    """What a finished search hands on.

    Attributes:
        shards: one per block, in row order.
        metrics: predicted and reached recall, cells, copies.
    """

    shards: list[Shard]
    metrics: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Searched:
    """The vectors to search, in memory or in an artifact that each task opens for itself; picklable.

    Attributes:
        origin: (N, D) vectors, or a finished ``vectors`` artifact.
        metric: what is near.
    """

    origin: Vectors | Artifact
    metric: Metric

    def open(self, opener: Callable[[Artifact], Vectors] = MappedVectors) -> Vectors:
        """Return the vectors under the metric; ``opener`` is how an artifact is read."""
        return under_metric(opener(self.origin) if isinstance(self.origin, Artifact) else self.origin, self.metric)

    def are_halves(self) -> bool:
        """Whether float16 holds them without loss."""
        origin = self.origin
        return isinstance(origin, Artifact) and self.metric == "l2" and MappedVectors(origin).dtype == np.float16


def block_cuts(n_rows: int, dim: int, config: GraphConfig) -> list[tuple[int, int]]:
    """Return (start, stop) of each block: whole tasks of routing and merging."""
    limit = min(BLOCK_BYTES, config.task_memory // 8)
    rows = config.block_rows or max(MIN_BLOCK_ROWS, limit // (4 * max(dim, 12 * config.n_neighbors)))
    return [(start, min(start + rows, n_rows)) for start in range(0, n_rows, rows)]


def search_cells(
    vectors: Vectors | Artifact, artifact: Artifact, done: dict[str, Shard], config: GraphConfig, mapper: Mapper
) -> Found:
    """Write the neighbour lists of all rows as ``part-*.arrow``, one per block.

    Args:
        vectors: (N, D), or the finished ``vectors`` artifact that holds them.
        artifact: begun; scratch files are written beside the parts and deleted at the end.
        done: shards that an earlier attempt left finished.
        config: the section ``graph``.
        mapper: runs the tasks.

    Raises:
        ConfigError: the target is out of reach within the memory.
        SearchFailedError: a device finds too little, or too many rows lie in cells of fewer than K others.
    """
    searched = Searched(vectors, config.metric)
    points = searched.open(FleetingVectors)  # the driver outlives all tasks
    cuts = block_cuts(points.n_rows, points.dim, config)
    parts = _named("part", cuts)
    if artifact.has(SUMMARY) and all(name in done for name, _ in parts):
        return _found([done[name] for name, _ in parts], artifact)
    run = functools.partial(_run, done, mapper)
    setting = _setting(searched, points, artifact, config, mapper, cuts)

    blocks = _named("route", cuts) if len(setting.cells) > 1 else []
    task = functools.partial(_route, searched=searched, artifact=artifact, config=config, setting=setting)
    routed = run(task, blocks, "routing rows to cells")
    groups = np.flatnonzero(group_sizes(routed)).tolist() if blocks else [0]
    solve = functools.partial(
        _solve,
        searched=searched,
        artifact=artifact,
        config=config,
        setting=setting,
        blocks=[name for name, _ in blocks],
    )
    solved = run(solve, _named("cell", groups), "searching cells")
    short = short_rows(solved) if points.n_rows > config.n_neighbors else np.empty(0, np.int64)
    if len(short) and COMPLETED not in done:
        found = _among_all(searched, points, short, config, mapper, cuts, "completing rows of small cells")
        done[COMPLETED] = write_completed(artifact, COMPLETED, short, found)
    names = [*_names(solved), COMPLETED] if len(short) else _names(solved)
    merge = functools.partial(_merge, searched=searched, artifact=artifact, config=config, solved=names)
    merged = run(merge, parts, "merging neighbours")
    _write_summary(artifact, setting, solved, merged, len(short))
    return _found(merged, artifact)


def sweep(artifact: Artifact, names: Iterable[str]) -> None:
    """Delete the scratch files among ``names``; the parts must be committed or about to be."""
    for name in names:
        if name.startswith(("route-", "cell-")):
            artifact.delete_file(name)


def _named(kind: str, items: Sequence[Any]) -> list[tuple[str, Any]]:
    return [(f"{kind}-{index:05d}.arrow", item) for index, item in enumerate(items)]


def _names(shards: Sequence[Shard]) -> list[str]:
    return [shard.name for shard in shards]


def _run(
    done: dict[str, Shard],
    mapper: Mapper,
    task: Callable[[Any], Shard],
    items: Sequence[tuple[str, Any]],
    description: str,
) -> list[Shard]:
    """Return the shards of all items in order; those that are done are not asked for again."""
    missing = [item for item in items if item[0] not in done]
    if missing:
        for shard in mapper(task, missing, description):
            done[shard.name] = shard
    return [done[name] for name, _ in items]


# ---- tuning ------------------------------------------------------------------------------------------------------


def _setting(
    searched: Searched,
    vectors: Vectors,
    artifact: Artifact,
    config: GraphConfig,
    mapper: Mapper,
    cuts: list[tuple[int, int]],
) -> Setting:
    """Return the setting, tuned once and then read from its files."""
    if written := Setting.read(artifact):
        return written
    setting = single_cell(vectors, config)
    if setting is None:
        queries = sampled(vectors.n_rows, N_QUERIES + N_CHECKED, config.seed)
        ids, distances = _among_all(searched, vectors, queries, config, mapper, cuts, "exact neighbours of a sample")
        checked = np.arange(len(queries)) % ((N_QUERIES + N_CHECKED) // N_CHECKED) == 0
        held_out = {"queries": queries[checked], "limits": distances[checked, -1]}
        artifact.write_file(TRUTH, lambda stream: np.savez(stream, **held_out))
        setting = tune(vectors, config, queries[~checked], ids[~checked])
    setting.write(artifact)
    return setting


def _among_all(
    searched: Searched,
    vectors: Vectors,
    queries: NDArray[np.int64],
    config: GraphConfig,
    mapper: Mapper,
    cuts: list[tuple[int, int]],
    description: str,
) -> Neighbors:
    """Return the neighbours (Q, K) of a few rows among all and their squared distances, in one pass."""
    sampled_rows, mean = vectors.gather(queries), vectors.mean.astype(np.float32)
    solver = ExactSolver(config.n_neighbors, mean, np.empty(0, np.int64), config.device)
    task = functools.partial(_nearest_in_block, searched=searched, solver=solver, own=queries, at=sampled_rows)
    return nearest_of_parts(mapper(task, cuts, description), queries, config.n_neighbors)


def _nearest_in_block(
    item: tuple[int, int],
    *,
    searched: Searched,
    solver: ExactSolver,
    own: NDArray[np.int64],
    at: NDArray[np.float32],
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    start, stop = item
    return solver.among(start, np.asarray(searched.open().block(start, stop)), at, own)


# ---- tasks -------------------------------------------------------------------------------------------------------


def _route(
    item: tuple[str, tuple[int, int]], *, searched: Searched, artifact: Artifact, config: GraphConfig, setting: Setting
) -> Shard:
    name, (start, stop) = item
    n_kept, half = config.n_neighbors + 1, searched.are_halves()
    return route(artifact, name, searched.open(), start, stop, setting.cells, setting.groups, n_kept, half=half)


def _solve(
    item: tuple[str, int],
    *,
    searched: Searched,
    artifact: Artifact,
    config: GraphConfig,
    setting: Setting,
    blocks: list[str],
) -> Shard:
    """Solve a group of cells and write its lists by ascending row."""
    name, group = item
    vectors = searched.open()
    members = RoutedGroup(artifact, blocks, group, vectors.dim) if blocks else WholeGroup(vectors)
    solver = CellSolver(setting.solver, config.n_neighbors, setting.local_target, config.seed, config.device)
    most = most_rows(config, setting.solver, vectors.dim)
    solved = solve_group(members, setting.groups == group, solver, most, vectors, config)
    details = {key: getattr(solved, key) for key in ("hits", "tries", "copies", "largest_cell")}
    details["short"] = solved.short.tolist()
    return write_arrays(artifact, name, [solved.columns], details)


def _merge(
    item: tuple[str, tuple[int, int]], *, searched: Searched, artifact: Artifact, config: GraphConfig, solved: list[str]
) -> Shard:
    name, (start, stop) = item
    vectors = searched.open()
    return merge_block(artifact, name, vectors, start, stop, solved, config, _sample_of(artifact, start, stop))


def _sample_of(artifact: Artifact, start: int, stop: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the rows of a block that check the recall, and the distance of their true k-th neighbours."""
    if not artifact.has(TRUTH):
        return np.empty(0, np.int64), np.empty(0, np.float32)
    truth = np.load(io.BytesIO(artifact.read_bytes(TRUTH)))
    queries, limits = truth["queries"], truth["limits"]
    inside = (queries >= start) & (queries < stop)
    return queries[inside], limits[inside]


# ---- what it came to ---------------------------------------------------------------------------------------------


def _write_summary(
    artifact: Artifact, setting: Setting, solved: list[Shard], merged: list[Shard], n_completed: int
) -> None:
    hits, tries, copies = (sum(shard.details[key] for shard in solved) for key in ("hits", "tries", "copies"))
    local_recall = hits / tries if tries else 1.0
    asked = sum(shard.details["asked"] for shard in merged)
    reached = sum(shard.details["hits"] for shard in merged) / asked if asked else local_recall
    summary = {
        "cells": len(setting.cells),
        "max_extra": setting.cells.max_extra,
        "eps": setting.cells.eps,
        "solver": setting.solver,
        "copies": copies / sum(shard.n_rows for shard in merged),
        "largest_cell_rows": max(shard.details["largest_cell"] for shard in solved),
        "predicted_recall": setting.predicted_recall * local_recall,
        "reached_recall": reached,
        "completed_rows": n_completed,
        "surplus_duplicates": sum(shard.details["surplus"] for shard in merged),
    }
    artifact.write_json(SUMMARY, summary)


def _found(shards: list[Shard], artifact: Artifact) -> Found:
    return Found(shards, artifact.read_json(SUMMARY))

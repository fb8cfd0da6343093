"""The neighbours of all rows through cells: sample, tune, route, solve each group of cells, merge.

Every step hands independent items to a mapper, and each item ends in a file with a receipt, so an interrupted search
continues with the items it lacks. Routed rows are deleted as soon as all cells are solved. What a step computes depends
on global row numbers and seeds alone: neither shards, workers nor the order of completion can change the graph. Steps
that an accelerator speeds up ask for one, and each task decides by what it has.

Shape letters: N rows, Q sampled queries, R runs of blocks, S groups of cells, F files, K neighbours.
"""

from __future__ import annotations

import dataclasses
import functools
import io
import logging
import platform
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distspectral.graph.config import GraphConfig, LocalSolver
from distspectral.graph.search.cuts import Run, block_cuts, merge_runs, read_runs
from distspectral.graph.search.local import CellSolver, has_nn_descent, require
from distspectral.graph.search.merging import completed_lists, merge_block, short_rows, write_lists
from distspectral.graph.search.routing import RoutedGroup, WholeGroup, route
from distspectral.graph.search.sampling import Sample, Searched, gather_sample, nearest_of_all
from distspectral.graph.search.solving import solve_group
from distspectral.graph.search.tuning import SETTING, Setting, most_rows, single_cell, tune
from distspectral.mapping import Mapper
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.artifact.manifest import Shard
from distspectral.storage.artifact.receipts import write_missing
from distspectral.storage.rows.arrays import piece_offsets, pieces_at
from distspectral.storage.rows.vectors import Vectors

logger = logging.getLogger(__name__)

TRUTH = ".truth.npz"
SOLVED = ".solved.json"
SUMMARY = ".summary.json"
COMPLETED = "cell-completed.arrow"
SCRATCH = ("sample", "route", "cell")
"""Kinds of files that are nobody's once the parts are written."""


@dataclasses.dataclass(frozen=True)
class Found:
    """What a finished search hands on.

    Attributes:
        shards: in row order.
        metrics: predicted and reached recall, cells, copies.
    """

    shards: list[Shard]
    metrics: dict[str, Any]


def search_cells(
    vectors: Vectors | Artifact, artifact: Artifact, done: dict[str, Shard], config: GraphConfig, mapper: Mapper
) -> Found:
    """Write the neighbour lists of all rows as ``part-*.arrow``, one per task of merging.

    Args:
        vectors: (N, D), or the finished ``vectors`` artifact that holds them.
        artifact: begun; scratch files are written beside the parts, for :func:`sweep` to delete.
        done: shards that an earlier attempt left finished.
        config: the section ``graph``.
        mapper: runs the tasks.

    Raises:
        ConfigError: the target is out of reach within the memory.
        SearchFailedError: a device finds too little, or too many rows lie in cells of fewer than K others.
    """
    searched = Searched(vectors, config.metric)
    points = searched.open()
    blocks = block_cuts(points.n_rows, points.dim, config)
    parts = _named("part", merge_runs(blocks, config))
    if artifact.has(SUMMARY) and all(name in done for name, _ in parts):
        return _found([done[name] for name, _ in parts], artifact)
    runs = read_runs(blocks, points.dim, config)
    setting = Setting.read(artifact) or _setting(searched, points, artifact, runs, done, config, mapper)
    starts = np.array([blocks[0][0] for _, blocks in parts])
    solved = _known(artifact, done) or _solved(searched, artifact, runs, starts, setting, config, done, mapper)
    short = short_rows(solved) if points.n_rows > config.n_neighbors else np.empty(0, np.int64)
    if len(short):
        if COMPLETED not in done:
            found = nearest_of_all(searched, short, runs, config, mapper, "completing rows of small cells")
            done[COMPLETED] = write_lists(artifact, COMPLETED, completed_lists(short, found), starts, {})
        solved = [*solved, done[COMPLETED]]
    merge = functools.partial(_merge, searched=searched, artifact=artifact, config=config, solved=_names(solved))
    items = [(name, (blocks, places)) for (name, blocks), places in zip(parts, _columns(solved), strict=True)]
    merged = write_missing(done, mapper, merge, items, "merging neighbours")
    _write_summary(artifact, setting, solved, merged, len(short))
    return _found(merged, artifact)


def sweep(artifact: Artifact, names: Iterable[str], kinds: Sequence[str] = SCRATCH) -> None:
    """Delete the scratch files of some kinds among ``names``; all of them may go when the parts are written."""
    for name in names:
        if name.startswith(tuple(f"{kind}-" for kind in kinds)):
            artifact.delete_file(name)


def _solved(
    searched: Searched,
    artifact: Artifact,
    runs: Sequence[Run],
    starts: NDArray[np.int64],
    setting: Setting,
    config: GraphConfig,
    done: dict[str, Shard],
    mapper: Mapper,
) -> list[Shard]:
    """Return the lists that all cells found, group by group, of which no routed row is needed any more."""
    run = functools.partial(write_missing, done, mapper)
    task = functools.partial(_route, searched=searched, artifact=artifact, config=config, setting=setting)
    routed = run(task, _named("route", runs) if len(setting.cells) > 1 else [], "routing rows to cells")
    filled = [(group, places) for group, places in enumerate(_columns(routed)) if np.diff(places).any()]
    solve = functools.partial(
        _solve,
        searched=searched,
        artifact=artifact,
        config=config,
        setting=setting,
        routed=_names(routed),
        starts=starts,
    )
    whole = [(0, np.empty((0, 2), np.int64))]
    solved = run(solve, _named("cell", filled or whole), "searching cells", on_gpu=True)
    artifact.write_json(SOLVED, _names(solved))
    sweep(artifact, _names(routed), ["route"])
    return solved


def _known(artifact: Artifact, done: Mapping[str, Shard]) -> list[Shard]:
    """Return the lists that an earlier attempt found, if it found all that cells find."""
    names = artifact.read_json(SOLVED) if artifact.has(SOLVED) else []
    return [done[name] for name in names] if all(name in done for name in names) else []


def _named(kind: str, items: Sequence[Any]) -> list[tuple[str, Any]]:
    return [(f"{kind}-{index:05d}.arrow", item) for index, item in enumerate(items)]


def _names(shards: Sequence[Shard]) -> list[str]:
    return [shard.name for shard in shards]


def _columns(shards: Sequence[Shard]) -> list[NDArray[np.int64]]:
    """Return, piece by piece, where it lies in each file: (F, 2)."""
    if not shards:
        return []
    offsets = piece_offsets(shards)
    return [offsets[:, piece : piece + 2] for piece in range(offsets.shape[1] - 1)]


def _setting(
    searched: Searched,
    vectors: Vectors,
    artifact: Artifact,
    runs: Sequence[Run],
    done: dict[str, Shard],
    config: GraphConfig,
    mapper: Mapper,
) -> Setting:
    """Return the setting, which is tuned by a task and then stands in files."""
    if (setting := single_cell(vectors, config)) is None:
        sample, checked = gather_sample(searched, artifact, _named("sample", runs), done, config, mapper)
        held_out = dataclasses.asdict(checked)
        artifact.write_file(TRUTH, lambda stream: np.savez(stream, **held_out))
        task = functools.partial(_tune, sample=sample, config=config)
        (setting,) = mapper(task, [SETTING], "choosing cells", on_gpu=True)
    setting.write(artifact)
    return setting


# ---- tasks -------------------------------------------------------------------------------------------------------


def _tune(item: str, *, sample: Sample, config: GraphConfig) -> Setting:
    del item  # there is one
    return tune(sample, config)


def _route(
    item: tuple[str, Run], *, searched: Searched, artifact: Artifact, config: GraphConfig, setting: Setting
) -> Shard:
    name, blocks = item
    n_kept, half = config.n_neighbors + 1, searched.are_halves()
    return route(artifact, name, searched.open(), blocks, setting.cells, setting.groups, n_kept, half=half)


def _solve(
    item: tuple[str, tuple[int, NDArray[np.int64]]],
    *,
    searched: Searched,
    artifact: Artifact,
    config: GraphConfig,
    setting: Setting,
    routed: list[str],
    starts: NDArray[np.int64],
) -> Shard:
    """Solve a group of cells and write its lists by ascending row, one piece for each of the runs at ``starts``."""
    name, (group, places) = item
    vectors, kind = searched.open(), _solver_here(setting.solver, config)
    members = RoutedGroup(artifact, pieces_at(routed, places), vectors.dim) if routed else WholeGroup(vectors)
    solver = CellSolver(kind, config.n_neighbors, setting.local_target, config.seed, config.device)
    solved = solve_group(
        members, setting.groups == group, solver, most_rows(config, kind, vectors.dim), vectors, config
    )
    details = {key: getattr(solved, key) for key in ("hits", "tries", "copies", "largest_cell")}
    details["short"] = solved.short.tolist()
    return write_lists(artifact, name, solved.columns, starts, details)


def _solver_here(solver: LocalSolver, config: GraphConfig) -> LocalSolver:
    """Return the solver, or exact search where its package is on the machine that chose it and not on this one.

    Raises:
        MissingDependencyError: it is the one that the config asks for.
    """
    if solver != "nn_descent" or has_nn_descent():
        return solver
    if config.solver != "auto":
        require(solver)
    _warn_once()
    return "exact"


@functools.cache
def _warn_once() -> None:
    logger.warning(
        "cells were chosen for NN-descent on a machine that has pynndescent, and %s has not: it searches exactly, "
        "which takes longer; install the same packages on all machines",
        platform.node(),
    )


def _merge(
    item: tuple[str, tuple[Run, NDArray[np.int64]]],
    *,
    searched: Searched,
    artifact: Artifact,
    config: GraphConfig,
    solved: list[str],
) -> Shard:
    name, (blocks, places) = item
    sample = _sample_of(artifact, blocks[0][0], blocks[-1][1])
    return merge_block(artifact, name, searched.open(), blocks, pieces_at(solved, places), config, sample)


def _sample_of(artifact: Artifact, start: int, stop: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the rows of a range that check the recall, and the distance of their true k-th neighbours."""
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
    groups = [shard for shard in solved if shard.name != COMPLETED]
    hits, tries, copies = (sum(shard.details[key] for shard in groups) for key in ("hits", "tries", "copies"))
    local_recall, forecast = hits / tries if tries else 1.0, setting.forecast
    asked = sum(shard.details["asked"] for shard in merged)
    reached = sum(shard.details["hits"] for shard in merged) / asked if asked else local_recall
    summary = {
        "cells": len(setting.cells),
        "max_extra": setting.cells.max_extra,
        "eps": setting.cells.eps,
        "solver": setting.solver,
        "copies": copies / sum(shard.n_rows for shard in merged),
        "largest_cell_rows": max(shard.details["largest_cell"] for shard in groups),
        "predicted_copies": forecast.copies,
        "copies_error": forecast.copies_error,
        "largest_cell_bound": forecast.largest_cell_bound,
        "predicted_recall": forecast.recall * local_recall,
        "predicted_recall_error": forecast.recall_error * local_recall,
        "reached_recall": reached,
        "completed_rows": n_completed,
        "surplus_duplicates": sum(shard.details["surplus"] for shard in merged),
    }
    artifact.write_json(SUMMARY, summary)


def _found(shards: list[Shard], artifact: Artifact) -> Found:
    return Found(shards, artifact.read_json(SUMMARY))

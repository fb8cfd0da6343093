"""What passes between the tasks of a search: the same lists whatever a task reads at once, and few requests."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import numpy as np
import pytest

from distspectral.errors import MissingDependencyError
from distspectral.graph.config import GraphConfig
from distspectral.graph.search.cells import Cells, fit_centroids
from distspectral.graph.search.local import CellSolver
from distspectral.graph.search.merging import merge_block
from distspectral.graph.search.routing import ROW, RoutedGroup, bisect, route
from distspectral.graph.search.solving import solve_group
from distspectral.graph.search.through_cells import search_cells
from distspectral.graph.search.tuning import Forecast, Setting
from distspectral.graph.store import read_neighbors
from distspectral.mapping import local_map
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.rows.arrays import piece_offsets, pieces_at, write_pieces
from distspectral.storage.rows.vectors import ArrayVectors
from tests.datasets import blobs
from tests.storage.counting import counting

K = 5
ROWS, _ = blobs(1500, 6, 5)
CELLS = Cells(fit_centroids(ROWS, 12, 0), 3, 0.5)
GROUPS = bisect(CELLS.centroids, np.ones(len(CELLS)), 4)
CONFIG = GraphConfig(metric="l2", n_neighbors=K, method="cells", block_rows=200, device="cpu")
FORECAST = Forecast(1.0, 0.0, 1.5, 0.0, 500.0, 500.0, 1.0)


def by_runs(folder: Path, rows, runs):
    """Return ids and distances of all rows, where each task reads and merges a run of blocks."""
    artifact, vectors = Artifact(str(folder)), ArrayVectors(rows)
    routed = [
        route(artifact, f"route-{index}.arrow", vectors, blocks, CELLS, GROUPS, K + 1, half=False)
        for index, blocks in enumerate(runs)
    ]
    solver, offsets, names, solved = CellSolver("exact", K, 1.0, 0), piece_offsets(routed), [r.name for r in routed], []
    for group in range(int(GROUPS.max()) + 1):
        members = RoutedGroup(artifact, pieces_at(names, offsets[:, group : group + 2]), 6)
        lists = solve_group(members, group == GROUPS, solver, 10**6, vectors, CONFIG).columns
        ends = np.searchsorted(lists[ROW], [blocks[0][0] for blocks in runs] + [len(rows)])
        pieces = [{key: column[low:high] for key, column in lists.items()} for low, high in itertools.pairwise(ends)]
        solved.append(write_pieces(artifact, f"cell-{group}.arrow", pieces))
    offsets, names = piece_offsets(solved), [shard.name for shard in solved]
    none = np.empty(0, np.int64), np.empty(0, np.float32)
    parts = []
    for index, blocks in enumerate(runs):
        pieces = pieces_at(names, offsets[:, index : index + 2])
        part = merge_block(artifact, f"part-{index}.arrow", vectors, blocks, pieces, CONFIG, none)
        parts.append(read_neighbors(artifact, part.name))
    return tuple(np.concatenate(arrays) for arrays in zip(*parts, strict=True))


@pytest.mark.parametrize("n_equal", [0, 900])
def test_a_task_of_several_blocks_finds_what_tasks_of_one_find(tmp_path, n_equal):
    rows = ROWS.copy()
    rows[np.random.default_rng(0).permutation(1500)[:n_equal]] = rows[3]
    cuts = [(0, 400), (400, 401), (401, 900), (900, 1500)]
    one_each = by_runs(tmp_path / "each", rows, [[cut] for cut in cuts])
    several = by_runs(tmp_path / "several", rows, [cuts[:3], cuts[3:]])
    for found, expected in zip(several, one_each, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_requests_are_one_open_and_one_read_for_each_file_and_group_that_meet(tmp_path):
    artifact, counter = counting(Artifact(str(tmp_path)))
    Setting(CELLS, GROUPS, "exact", 1.0, FORECAST).write(artifact)
    done = {}
    search_cells(ArrayVectors(ROWS), artifact, done, CONFIG, local_map)
    shuffled = [shard for name, shard in done.items() if not name.startswith("part-")]
    assert len(shuffled) == 8 + int(GROUPS.max()) + 1
    meetings = sum(np.count_nonzero(np.diff(piece_offsets([shard]))) for shard in shuffled)
    assert counter["opened"] == meetings + len(done), "each file's version is asked for when it is written"
    assert counter["read"] == meetings
    assert counter["bytes"] == sum(shard.n_bytes for shard in shuffled)


def test_cells_chosen_for_a_solver_that_this_machine_lacks_are_searched_exactly(tmp_path, monkeypatch):
    def searched(folder, solver, config):
        artifact = Artifact(str(tmp_path / folder))
        Setting(CELLS, GROUPS, solver, 0.99, FORECAST).write(artifact)
        return read_neighbors(
            artifact, search_cells(ArrayVectors(ROWS), artifact, {}, config, local_map).shards[0].name
        )

    exact = searched("exact", "exact", CONFIG)
    monkeypatch.setitem(sys.modules, "pynndescent", None)
    for found, expected in zip(searched("lacking", "nn_descent", CONFIG), exact, strict=True):
        np.testing.assert_array_equal(found, expected)
    with pytest.raises(MissingDependencyError, match="pynndescent"):
        searched("asked", "nn_descent", CONFIG.model_copy(update={"solver": "nn_descent"}))

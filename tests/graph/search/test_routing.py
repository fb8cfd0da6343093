from __future__ import annotations

import numpy as np
import pytest

from distspectral.graph.search.cells import NO_CELL, Cells, fit_centroids
from distspectral.graph.search.routing import RoutedGroup, bisect, route, surplus_rows
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.rows.arrays import piece_offsets, pieces_at
from distspectral.storage.rows.vectors import ArrayVectors
from tests.datasets import blobs
from tests.storage.counting import counting

ROWS, _ = blobs(1000, 6, 5)
CELLS = Cells(fit_centroids(ROWS, 12, 0), 3, 0.5)
GROUPS = bisect(CELLS.centroids, np.ones(len(CELLS)), 4)
CUTS = [(0, 300), (300, 301), (301, 1000)]


def test_groups_are_halves_of_regions_within_the_limit():
    centroids = np.stack([np.arange(16), np.zeros(16)], axis=1).astype(np.float32)
    groups = bisect(centroids, np.ones(16), 5)
    assert np.bincount(groups).tolist() == [4, 4, 4, 4]
    assert (np.count_nonzero(np.diff(groups))) == 3  # neighbours on the line share a group


def test_a_heavy_cell_is_a_group_of_its_own():
    groups = bisect(np.arange(4, dtype=np.float32)[:, None], np.array([1.0, 9, 1, 1]), 3)
    assert np.count_nonzero(groups == groups[1]) == 1


def routed(artifact, rows, runs, n_kept=4, half=False):
    """Return the pieces of each group as a search hands them out."""
    shards = [
        route(artifact, f"route-{index}.arrow", ArrayVectors(rows), blocks, CELLS, GROUPS, n_kept, half=half)
        for index, blocks in enumerate(runs)
    ]
    offsets, names = piece_offsets(shards), [shard.name for shard in shards]
    return [pieces_at(names, offsets[:, group : group + 2]) for group in range(int(GROUPS.max()) + 1)]


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("runs", [[[cut] for cut in CUTS], [CUTS[:2], CUTS[2:]], [CUTS]])
def test_a_group_reads_each_of_its_rows_once_in_row_order(tmp_path, half, runs):
    artifact = Artifact(str(tmp_path))
    rows = ROWS.astype(np.float16).astype(np.float32) if half else ROWS
    assigned = CELLS.assign(rows)
    for group, pieces in enumerate(routed(artifact, rows, runs, half=half)):
        expected = np.flatnonzero(((assigned != NO_CELL) & (GROUPS[assigned] == group)).any(axis=1))
        members = RoutedGroup(artifact, pieces, 6)
        np.testing.assert_array_equal(members.ids, expected)
        np.testing.assert_array_equal(members.cells, assigned[expected])
        some = np.arange(0, len(expected), 3)
        np.testing.assert_array_equal(members.vectors(some), rows[expected[some]])


@pytest.mark.parametrize(("at_once", "expected"), [(5000, [1000]), (300, [301, 699])])
def test_blocks_of_a_task_look_for_their_cells_together(tmp_path, monkeypatch, at_once, expected):
    asked, assign = [], Cells.assign
    monkeypatch.setattr(Cells, "assign", lambda cells, rows: asked.append(len(rows)) or assign(cells, rows))
    monkeypatch.setattr("distspectral.graph.search.routing.ASSIGNED_ROWS", at_once)
    pieces = routed(Artifact(str(tmp_path)), ROWS, [CUTS])
    assert asked == expected
    members = RoutedGroup(Artifact(str(tmp_path)), pieces[0], 6)
    np.testing.assert_array_equal(members.cells, assign(CELLS, ROWS)[members.ids])


def test_surplus_duplicates_stay_behind_block_by_block_whatever_a_task_reads(tmp_path):
    rows = ROWS.copy()
    rows[np.random.default_rng(0).permutation(1000)[:700]] = rows[3]
    apart = routed(Artifact(str(tmp_path / "apart")), rows, [[cut] for cut in CUTS])
    together = routed(Artifact(str(tmp_path / "together")), rows, [CUTS])
    travelled = []
    for one, other in zip(apart, together, strict=True):
        members = RoutedGroup(Artifact(str(tmp_path / "apart")), one, 6)
        np.testing.assert_array_equal(members.ids, RoutedGroup(Artifact(str(tmp_path / "together")), other, 6).ids)
        travelled.append(members.ids)
    late, first = surplus_rows(ArrayVectors(rows), CUTS, 4)
    np.testing.assert_array_equal(np.setdiff1d(np.arange(1000), np.concatenate(travelled)), late)
    np.testing.assert_array_equal(rows[late], rows[first])
    equal = np.flatnonzero((rows == rows[3]).all(axis=1))
    assert len(late) == sum(max(np.count_nonzero((equal >= low) & (equal < high)) - 4, 0) for low, high in CUTS)


def test_a_meeting_of_a_file_and_a_group_is_one_open_and_one_ranged_read(tmp_path):
    artifact, counter = counting(Artifact(str(tmp_path)))
    groups = routed(artifact, ROWS, [[cut] for cut in CUTS])
    counter.clear()
    for pieces in groups:
        RoutedGroup(artifact, pieces, 6)
    meetings = sum(len(pieces) for pieces in groups)
    assert meetings < len(CUTS) * len(groups)  # the block of one row meets few
    written = sum((tmp_path / f"route-{index}.arrow").stat().st_size for index in range(len(CUTS)))
    assert counter == {"opened": meetings, "read": meetings, "bytes": written}

from __future__ import annotations

import numpy as np
import pytest

from distspectral.graph.search.cells import NO_CELL, Cells, fit_centroids
from distspectral.graph.search.routing import RoutedGroup, bisect, group_sizes, route
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.rows.vectors import ArrayVectors
from tests.datasets import blobs

ROWS, _ = blobs(1000, 6, 5)
CELLS = Cells(fit_centroids(ROWS, 12, 0), 3, 0.5)


def test_groups_are_halves_of_regions_within_the_limit():
    centroids = np.stack([np.arange(16), np.zeros(16)], axis=1).astype(np.float32)
    groups = bisect(centroids, np.ones(16), 5)
    assert np.bincount(groups).tolist() == [4, 4, 4, 4]
    assert (np.count_nonzero(np.diff(groups))) == 3  # neighbours on the line share a group


def test_a_heavy_cell_is_a_group_of_its_own():
    groups = bisect(np.arange(4, dtype=np.float32)[:, None], np.array([1.0, 9, 1, 1]), 3)
    assert np.count_nonzero(groups == groups[1]) == 1


@pytest.mark.parametrize("half", [False, True])
def test_a_group_reads_each_of_its_rows_once_in_row_order(tmp_path, half):
    groups = bisect(CELLS.centroids, np.ones(len(CELLS)), 4)
    artifact = Artifact(str(tmp_path))
    rows = ROWS.astype(np.float16).astype(np.float32) if half else ROWS
    cuts = [(0, 300), (300, 301), (301, 1000)]
    names = [f"route-{start}.arrow" for start, _ in cuts]
    routed = [
        route(artifact, name, ArrayVectors(rows), start, stop, CELLS, groups, 4, half=half)
        for name, (start, stop) in zip(names, cuts, strict=True)
    ]
    assigned = CELLS.assign(rows)
    for group, size in enumerate(group_sizes(routed)):
        expected = np.flatnonzero(((assigned != NO_CELL) & (groups[assigned] == group)).any(axis=1))
        assert size == len(expected)
        members = RoutedGroup(artifact, names, group, 6)
        np.testing.assert_array_equal(members.ids, expected)
        np.testing.assert_array_equal(members.cells, assigned[expected])
        some = np.arange(0, size, 3)
        np.testing.assert_array_equal(members.vectors(some), rows[expected[some]])

from __future__ import annotations

import numpy as np
import pytest

from distspectral.graph.search.cells import NO_CELL, TWO_LEVEL_CELLS, Cells, assign_us, fit_centroids, fit_regions
from distspectral.graph.search.regions import NOT_LISTED, Regions, n_regions

NOISE = np.random.default_rng(0).standard_normal((9000, 12)).astype(np.float32)


def test_a_cell_is_listed_for_its_nearest_regions_and_lists_ascend(monkeypatch):
    monkeypatch.setattr("distspectral.graph.search.regions.LISTED", 3)
    cells, centroids = NOISE[:200], NOISE[200:220]
    regions = Regions.of(cells, centroids)
    near = np.argsort(np.square(cells[:, None] - centroids).sum(axis=2), axis=1)[:, :3]
    lists = np.split(regions.cells, regions.stops[:-1])
    assert regions.stops[-1] == len(regions.cells) == 600
    for region, listed in enumerate(lists):
        assert listed.tolist() == np.flatnonzero((near == region).any(axis=1)).tolist()


def test_a_region_that_lists_few_cells_leaves_the_rest_open():
    cells, centroids = np.array([[0, 0], [9, 9], [10, 10]], np.float32), np.array([[0, 0], [10, 10]], np.float32)
    regions = Regions(centroids, np.array([0, 1, 2], np.int32), np.array([1, 3]))
    assert regions.nearest(cells, cells, 2).tolist() == [[0, NOT_LISTED], [1, 2], [2, 1]]


def test_cells_of_noise_are_found_although_regions_are_cut_anywhere(monkeypatch):
    monkeypatch.setattr("distspectral.graph.search.cells.TWO_LEVEL_CELLS", 500)
    centroids = fit_centroids(NOISE, 1500, 0)
    rows = NOISE[:2000]
    expected, found = (Cells(centroids, 2, 1.0, regions).assign(rows) for regions in (None, fit_regions(centroids, 0)))
    shared = (expected[:, :, None] == found[:, None, :]) & (expected != NO_CELL)[:, :, None]
    assert shared.any(axis=2).sum() > 0.97 * (expected != NO_CELL).sum()  # .82 if listed for 8


@pytest.mark.parametrize("n_cells", [TWO_LEVEL_CELLS + 1, 10**6])
def test_two_levels_look_at_fewer_centroids_than_one(n_cells):
    assert 2 * n_regions(n_cells) < n_cells / 2
    assert assign_us(n_cells, 16) < assign_us(TWO_LEVEL_CELLS, 16) * np.sqrt(n_cells / TWO_LEVEL_CELLS) * 2

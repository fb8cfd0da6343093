from __future__ import annotations

import numpy as np
import pytest

from distspectral.errors import SearchFailedError
from distspectral.graph.search.cells import NO_CELL, TWO_STEP_CELLS, Cells, fit_centroids, fit_regions, split_large
from tests.datasets import blobs

ROWS, _ = blobs(2000, 8, 6)


def distances_to(centroids, rows=ROWS):
    return np.square(rows[:, None].astype(np.float64) - centroids[None]).sum(axis=2)


def test_a_row_is_in_its_nearest_cell_and_in_those_whose_border_is_near():
    centroids = fit_centroids(ROWS, 20, 0).astype(np.float64)
    assigned = Cells(centroids.astype(np.float32), 3, 0.3).assign(ROWS)
    order = np.argsort(distances_to(centroids), axis=1)
    for row in range(0, 2000, 97):
        home = centroids[order[row, 0]]
        expected = [order[row, 0]]
        for cell in order[row, 1:4]:
            normal = (centroids[cell] - home) / np.linalg.norm(centroids[cell] - home)
            border = ((centroids[cell] + home) / 2 - ROWS[row]) @ normal
            if border <= 0.3 * np.linalg.norm(ROWS[row] - home):
                expected.append(cell)
        assert [cell for cell in assigned[row] if cell != NO_CELL] == expected


def test_a_row_on_its_centroid_is_in_no_other_cell():
    centroids = np.array([[0, 0], [1, 0], [5, 0]], np.float32)
    assert Cells(centroids, 2, 0.4).assign(centroids).tolist() == [[0, -1, -1], [1, -1, -1], [2, -1, -1]]


def test_assignment_does_not_depend_on_the_block():
    cells = Cells(fit_centroids(ROWS, 20, 0), 3, 0.2)
    parts = [cells.assign(ROWS[start : start + 37]) for start in range(0, 2000, 37)]
    np.testing.assert_array_equal(np.concatenate(parts), cells.assign(ROWS))


def test_two_levels_find_nearly_the_same_cells(monkeypatch):
    monkeypatch.setattr("distspectral.graph.search.cells.TWO_LEVEL_CELLS", 500)
    centroids = np.unique(ROWS[:900], axis=0)
    assert fit_regions(centroids[:100], 0) is None
    regions = fit_regions(centroids, 0)
    assert len(regions) < 300
    expected, _ = Cells(centroids, 0, 0.0).nearest(ROWS, 3)
    found, borders = Cells(centroids, 0, 0.0, regions).nearest(ROWS, 3)
    assert np.mean(found[:, 0] == expected[:, 0]) > 0.98
    assert np.mean(found == expected) > 0.95
    assert (borders >= 0).all()


def test_many_centroids_are_fitted_in_two_steps():
    n_cells = TWO_STEP_CELLS + 50
    centroids = fit_centroids(ROWS, n_cells, 0)
    assert 0.9 * n_cells <= len(centroids) <= 1.1 * n_cells
    one_step = fit_centroids(ROWS, TWO_STEP_CELLS, 0)
    assert distances_to(centroids).min(axis=1).mean() < 1.1 * distances_to(one_step).min(axis=1).mean()
    np.testing.assert_array_equal(centroids, fit_centroids(ROWS, n_cells, 0))


def test_large_cells_are_split():
    rows = np.concatenate([np.repeat(ROWS[:1], 10, axis=0) + 1000, ROWS])
    start = fit_centroids(rows, 2, 0)
    centroids = split_large(start, rows, 0.1, 0)
    home = Cells(centroids, 0, 0.0).nearest(rows, 1)[0][:, 0]
    assert np.bincount(home).max() <= 0.1 * len(rows)


def test_equal_rows_cannot_be_split_and_do_not_loop():
    rows = np.ones((500, 4), np.float32)
    centroids = split_large(fit_centroids(rows, 3, 0), rows, 0.1, 0)
    assert len(np.unique(Cells(centroids, 0, 0.0).assign(rows))) == 1


@pytest.mark.parametrize("n_cells", [1, 3])
def test_more_neighbouring_cells_than_there_are_is_no_error(n_cells):
    assigned = Cells(ROWS[:n_cells], 7, 9.0).assign(ROWS)
    assert assigned.shape == (2000, n_cells)


def test_rows_beyond_float32_are_an_error():
    rows = ROWS[:20] * np.float32(1e25)
    with np.errstate(over="ignore", invalid="ignore"), pytest.raises(SearchFailedError, match="20 of 20 rows"):
        Cells(ROWS[:30], 0, 0.0).nearest(rows, 2)

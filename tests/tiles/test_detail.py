"""Levels of detail from counts: what a level holds, and that rows follow from them alone."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from distspectral.tiles.detail import Strata, filled, grid_bits, keys_of, levels_of_detail
from distspectral.tiles.plane import Plane, cell_of, row_hash

N_CLUSTERS = 3
N_ROWS = 20_000
BITS = 6


def rows() -> tuple[np.ndarray, np.ndarray]:
    """Return Morton numbers and clusters: a crowd, a wide cloud, and a rare cluster inside the crowd."""
    rng = np.random.default_rng(0)
    cluster = rng.choice(N_CLUSTERS, N_ROWS, p=[0.9, 0.099, 0.001])
    scale = np.array([0.1, 3.0, 0.1])[cluster]
    x, y = (rng.normal(size=(2, N_ROWS)) * scale).astype(np.float32)
    plane = Plane.around(np.array([x.min(), y.min()], float), np.array([x.max(), y.max()], float))
    return plane.morton(x, y), cluster


def strata(morton: np.ndarray, cluster: np.ndarray) -> Strata:
    keys, counts = np.unique(keys_of(morton, cluster, BITS, N_CLUSTERS), return_counts=True)
    return Strata(BITS, N_CLUSTERS, keys, counts)


def test_tiles_hold_about_as_many_rows_as_asked_and_all_rows_are_shown() -> None:
    morton, cluster = rows()
    counted = strata(morton, cluster)
    detail = levels_of_detail(counted, 100, 10**9)
    level, _ = detail.of_rows(keys_of(morton, cluster, BITS, N_CLUSTERS), row_hash(0, N_ROWS))
    assert detail.n_levels > 3
    assert level.max() == detail.n_levels - 1
    for one in range(detail.n_levels - 1):  # the last takes what is left
        across, up = cell_of(morton[level == one], one)
        sizes = np.unique(across.astype(int) << 20 | up, return_counts=True)[1]
        assert sizes.max() < 2 * 100  # beside a tile with few rows it shows some more
    assert 50 < (level == 0).sum() < 150
    rare = (level[cluster == 2] == 0).mean()
    assert rare > 5 * (level[cluster == 0] == 0).mean(), "a crowd does not hide what is rare"


def test_few_rows_are_all_on_the_first_level() -> None:
    morton, cluster = rows()
    detail = levels_of_detail(strata(morton, cluster), N_ROWS, 10**9)
    level, file = detail.of_rows(keys_of(morton, cluster, BITS, N_CLUSTERS), row_hash(0, N_ROWS))
    assert detail.n_levels == 1
    assert not level.any()
    assert not file.any()


@pytest.mark.parametrize("same_place", [False, True])
def test_files_of_a_level_are_alike_in_size_even_if_all_rows_are_in_one_cell(same_place: bool) -> None:
    morton, cluster = rows()
    if same_place:
        morton, cluster = np.full(N_ROWS, 77, np.uint32), np.zeros(N_ROWS, np.int64)
    detail = levels_of_detail(strata(morton, cluster), 100, 500)
    level, file = detail.of_rows(keys_of(morton, cluster, BITS, N_CLUSTERS), row_hash(0, N_ROWS))
    sizes = np.bincount(file, minlength=detail.first_files[-1])
    assert sizes.max() < 500 + 5 * 23
    for one in range(detail.n_levels):
        first, last = detail.first_files[one], detail.first_files[one + 1]
        assert set(file[level == one]) <= set(range(first, last))
        if not same_place:  # files follow each other along the curve, cell by cell
            cells = morton >> np.uint32(2 * (16 - BITS))
            ranges = [(cells[file == at].min(), cells[file == at].max()) for at in range(first, last)]
            assert all(before[1] <= after[0] for before, after in itertools.pairwise(ranges))


def test_a_budget_is_shared_by_weight_and_what_one_cannot_take_goes_to_the_others() -> None:
    capacities = np.array([1.0, 100.0, 100.0, 5.0, 6.0])
    vessel = np.array([0, 0, 0, 1, 1])
    quota = filled(capacities, np.ones(5), vessel, 21.0)
    assert quota.tolist() == [1.0, 10.0, 10.0, 5.0, 6.0]
    weighted = filled(capacities, np.sqrt(capacities), vessel, 21.0)
    assert weighted[:3].sum() == pytest.approx(21.0)
    assert (weighted <= capacities).all()


def test_the_grid_grows_with_the_rows() -> None:
    assert [grid_bits(n) for n in (1, 10**4, 10**6, 10**9)] == [5, 6, 9, 10]

from __future__ import annotations

import numpy as np
import pytest

from distspectral.graph.search.products import BLOCK, MOST_NEAREST, nearest_in_set


def exact(rows, k):
    distances = np.square(rows[:, None].astype(np.float64) - rows[None]).sum(axis=2)
    np.fill_diagonal(distances, np.inf)
    return np.argsort(distances, axis=1)[:, :k]


@pytest.mark.parametrize("dim", [1, 7, 300])
@pytest.mark.parametrize("n_rows", [30, BLOCK, BLOCK + 1, 700])
def test_the_nearest_are_among_the_candidates(n_rows, dim):
    rows = np.random.default_rng(dim).standard_normal((n_rows, dim)).astype(np.float32)
    candidates = nearest_in_set(rows, 12)
    for row, nearest in enumerate(exact(rows, 12)):
        assert set(nearest) <= set(candidates[row])
        assert row not in candidates[row]
        assert len(set(candidates[row]) - {-1}) == np.count_nonzero(candidates[row] >= 0)


@pytest.mark.parametrize("n_rows", [1, 2, 5])
def test_fewer_rows_than_wanted_give_all_others(n_rows):
    rows = np.arange(n_rows, dtype=np.float32)[:, None]
    for row, candidates in enumerate(nearest_in_set(rows, MOST_NEAREST)):
        assert sorted(candidates[candidates >= 0]) == [other for other in range(n_rows) if other != row]


@pytest.mark.parametrize("dim", [3, 300])
def test_equal_rows_are_all_candidates(dim):
    rows = np.repeat(np.eye(4, dim, dtype=np.float32), 10, axis=0)
    candidates = nearest_in_set(rows, 9)
    assert set(range(9)) == set(candidates[9][candidates[9] >= 0])

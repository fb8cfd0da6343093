from __future__ import annotations

import pickle

import numpy as np
import pytest

from distspectral.graph.stratified import StratifiedRows


@pytest.mark.parametrize(("n_rows", "count"), [(10, 3), (1000, 7), (1001, 1000), (1 << 33, 5), (10**10, 1 << 12)])
def test_one_row_of_each_stretch_is_known_by_its_number(n_rows, count):
    sample = StratifiedRows(n_rows, count)
    stretches = np.searchsorted(np.arange(1, count + 1) * n_rows // count, sample.rows, side="right")
    np.testing.assert_array_equal(stretches, np.arange(count))
    around = np.unique(np.clip(sample.rows[:, None] + np.arange(-2, 3), 0, n_rows - 1))
    hits, places = sample.found(around)
    np.testing.assert_array_equal(around[hits], sample.rows)
    np.testing.assert_array_equal(places, np.arange(count))
    start, stop = n_rows // 3, n_rows // 2
    expected = sample.rows[(sample.rows >= start) & (sample.rows < stop)]
    np.testing.assert_array_equal(sample.rows[sample.stretch(start, stop)], expected)


def test_few_rows_are_all_taken():
    sample = StratifiedRows(5, 100)
    assert sample.rows.tolist() == [0, 1, 2, 3, 4]
    hits, places = sample.found(np.array([4, 1, 1]))
    assert (hits.tolist(), places.tolist()) == ([0, 1, 2], [4, 1, 1])


def test_every_process_draws_the_same_and_no_place_of_a_stretch_is_preferred():
    sample = StratifiedRows(10**6, 10**4)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(sample)).rows, sample.rows)
    places = sample.rows % 100
    assert abs(places.mean() - 49.5) < 5 * 28.9 / 100  # five standard errors

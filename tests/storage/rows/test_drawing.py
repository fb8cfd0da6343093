from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from distspectral.storage.rows import drawing
from distspectral.storage.rows.drawing import drawn_rows


@pytest.mark.parametrize(
    ("n_rows", "count"), [(10, 20), (1000, 10), (1000, 300), (1000, 499), (1000, 900), (1000, 1000)]
)
def test_so_many_different_rows_are_drawn_in_order(monkeypatch, n_rows, count):
    monkeypatch.setattr(drawing, "WRITTEN_DOWN", 5)
    rows = drawn_rows(n_rows, count, np.random.default_rng(0))
    assert len(rows) == min(count, n_rows)
    assert (np.diff(rows) > 0).all()
    assert rows[0] >= 0
    assert rows[-1] < n_rows


def test_every_row_is_drawn_as_often(monkeypatch):
    monkeypatch.setattr(drawing, "WRITTEN_DOWN", 5)
    generator, counts = np.random.default_rng(0), np.zeros(50)
    for _ in range(2000):
        counts[drawn_rows(50, 10, generator)] += 1
    assert abs(counts / 2000 - 0.2).max() < 4.5 * np.sqrt(0.2 * 0.8 / 2000)


def test_few_rows_are_drawn_as_numpy_does():
    expected = np.sort(np.random.default_rng(3).choice(5000, 400, replace=False))
    np.testing.assert_array_equal(drawn_rows(5000, 400, np.random.default_rng(3)), expected)


def test_memory_is_that_of_the_rows_drawn():
    tracemalloc.start()
    try:
        drawn_rows(1 << 23, 200_000, np.random.default_rng(0))
        assert tracemalloc.get_traced_memory()[1] < (1 << 23)
    finally:
        tracemalloc.stop()

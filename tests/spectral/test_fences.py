"""Fences of groups against quartiles of each."""

from __future__ import annotations

import numpy as np
import pytest

from distspectral.spectral.fences import FEWEST, fences


def test_a_fence_is_some_distances_between_quartiles_beyond_the_upper_one():
    rng = np.random.default_rng(0)
    values, groups = rng.lognormal(size=300), rng.integers(0, 3, 300)
    for group, found in enumerate(fences(values, groups, 3, 2.5)):
        lower, upper = np.quantile(values[groups == group], [0.25, 0.75])
        assert found == pytest.approx(upper + 2.5 * (upper - lower))


def test_few_values_and_equal_ones_have_no_fence():
    values = np.r_[np.arange(FEWEST - 1.0), np.full(30, 7.0), 99.0, 7 + 1e-6 * np.arange(40)]
    groups = np.r_[np.zeros(FEWEST - 1, int), np.full(31, 2), np.full(40, 3)]
    assert np.isinf(fences(values, groups, 5, 2)).all()

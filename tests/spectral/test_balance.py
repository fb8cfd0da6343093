"""Balanced samples: as even as sizes allow, unbiased, and of the size asked for."""

from __future__ import annotations

import numpy as np
import pytest

from distspectral.spectral.balance import evenness, expected_rows, split, whole_numbers


def filled(sizes: np.ndarray, budget: float) -> np.ndarray:
    """Return min(size, level) by bisection."""
    low, high = 0.0, float(sizes.max())
    for _ in range(200):
        level = (low + high) / 2
        low, high = (level, high) if np.minimum(sizes, level).sum() < budget else (low, level)
    return np.minimum(sizes, high)


@pytest.mark.parametrize("seed", range(5))
def test_children_give_as_evenly_as_their_sizes_allow(seed: int) -> None:
    rng = np.random.default_rng(seed)
    parents, sizes = rng.integers(0, 6, 60), rng.integers(0, 50, 60)
    sizes[::7] = sizes[3]  # ties
    rows = np.bincount(parents, sizes, 6)
    budgets = rows * np.array([0, 0.1, 0.5, 0.9, 1, 0.3])
    given = split(parents, sizes, budgets, replace=False)
    for parent in range(6):
        own = parents == parent
        assert given[own] == pytest.approx(filled(sizes[own], budgets[parent]), abs=1e-9)
    with_replacement = split(parents, sizes, budgets * 10, replace=True)
    for parent in range(6):
        own = (parents == parent) & (sizes > 0)
        assert with_replacement[own] == pytest.approx(budgets[parent] * 10 / own.sum())
    assert not with_replacement[sizes == 0].any()


def test_a_sample_is_even_over_the_nodes_of_each_level_in_turn() -> None:
    levels = [np.array([0, 0, 0, 1, 1, 1]), np.array([0, 0, 1, 2, 2, 3])]
    sizes = np.array([100, 100, 4, 500, 3, 900])
    # 120 = 60 + 60; 60 = 56 + 4 by the small node, 30 + 30; 56 = 28 + 28, 30 = 27 + 3
    assert expected_rows(levels, sizes, 120, replace=False) == pytest.approx([28, 28, 4, 27, 3, 30])
    assert expected_rows(levels, sizes, 120, replace=True) == pytest.approx([15, 15, 30, 15, 15, 30])
    assert expected_rows(levels, sizes, int(sizes.sum()), replace=False) == pytest.approx(sizes)
    assert expected_rows([], np.array([10, 30]), 20, replace=False) == pytest.approx([10, 10])


def test_whole_numbers_are_unbiased_and_sum_to_the_same() -> None:
    expected = np.array([0.25, 0.5, 2.0, 0.75, 3.5, 0.0])
    drawn = np.array([whole_numbers(expected, np.random.default_rng(seed)) for seed in range(4000)])
    assert (drawn.sum(axis=1) == 7).all()
    assert ((drawn == np.floor(expected)) | (drawn == np.ceil(expected))).all()
    assert drawn.mean(axis=0) == pytest.approx(expected, abs=0.03)  # four standard deviations of .5 / sqrt(4000)
    thirds = np.full(3_000, 1 / 3)  # whose running sum is not exact
    assert whole_numbers(thirds, np.random.default_rng(0)).sum() == 1000
    assert (whole_numbers(np.full(10_000, 7.0), np.random.default_rng(0)) == 7).all()


def test_evenness_is_the_entropy_beside_the_most_there_could_be() -> None:
    assert evenness(np.array([5, 5, 5])) == pytest.approx(1)
    assert evenness(np.array([7, 0])) == 0
    assert evenness(np.array([3, 1])) == pytest.approx(0.8113, abs=1e-4)
    assert evenness(np.array([4])) == 0

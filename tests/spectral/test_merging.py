"""Merging by modularity against a search through all pairs in each step."""

from __future__ import annotations

import numpy as np
import pytest

from distspectral.spectral.diagnostics import modularity
from distspectral.spectral.merging import merge_by_modularity


def affinities(seed, n_small=30):
    rng = np.random.default_rng(seed)
    drawn = np.triu(rng.random((n_small, n_small)) * (rng.random((n_small, n_small)) < 0.3))
    return drawn + drawn.T + np.diag(rng.random(n_small))


def by_all_pairs(between, n_clusters, groups):
    """Merge the pair whose merger leaves the most modularity, found by computing that of every partition."""
    merged = np.arange(len(between))
    heads, tails = np.nonzero(np.triu(between))
    weights = between[heads, tails] * np.where(heads == tails, 0.5, 1)
    for _ in range(len(between) - n_clusters):
        pairs = [(i, j) for i in np.unique(merged) for j in np.unique(merged) if i < j and groups[i] == groups[j]]
        left = []
        for i, j in pairs:
            tried = np.where(merged == j, i, merged)
            left.append(modularity(tried[heads], tried[tails], weights, len(between)))
        i, j = pairs[int(np.argmax(left))]
        merged[merged == j] = i
    return merged


def same(first, second):
    return len(set(zip(first, second, strict=True))) == len(set(first)) == len(set(second))


@pytest.mark.parametrize("seed", range(4))
def test_every_step_merges_the_pair_that_gains_most(seed):
    between, groups = affinities(seed, 14), np.zeros(14, np.int64)
    for n_clusters in range(1, 15):
        found = merge_by_modularity(between, n_clusters, groups)
        assert np.unique(found).tolist() == list(range(n_clusters))
        assert same(found, by_all_pairs(between, n_clusters, groups)), n_clusters


@pytest.mark.parametrize("n_clusters", [3, 5])
def test_groups_are_never_merged_however_much_that_gains(n_clusters):
    between, groups = affinities(0, 12), np.arange(12) % 3
    found = merge_by_modularity(between, n_clusters, groups)
    assert all(len(np.unique(groups[found == cluster])) == 1 for cluster in range(n_clusters))
    assert same(found, by_all_pairs(between, n_clusters, groups))


def test_affinities_stay_as_they_were():
    between, groups = affinities(0), np.zeros(30, np.int64)
    kept = between.copy()
    merge_by_modularity(between, 4, groups)
    np.testing.assert_array_equal(between, kept)
    assert not groups.any()

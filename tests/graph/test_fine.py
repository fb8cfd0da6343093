"""Fine groups: each step against a search through all pairs of groups, and planted ones."""

from __future__ import annotations

import numpy as np
import pytest

from distspectral.graph.fine import fine_groups
from distspectral.graph.store import ArrayGraph


def planted(n_groups=40, size=10, seed=0):
    """Return a graph whose rows know four of their own group and two of others, and their groups."""
    rng = np.random.default_rng(seed)
    truth = rng.permutation(np.repeat(np.arange(n_groups), size))
    members = [np.flatnonzero(truth == group) for group in range(n_groups)]
    own = np.stack([rng.choice(members[group], 4, replace=False) for group in truth])
    neighbors = np.concatenate([own, rng.integers(0, len(truth), (len(truth), 2))], axis=1)
    affinities = np.concatenate([rng.uniform(0.5, 1, own.shape), rng.uniform(0, 0.3, (len(truth), 2))], axis=1)
    return ArrayGraph(neighbors, affinities), truth


def test_planted_groups_are_found():
    graph, truth = planted()
    found = fine_groups(graph, np.zeros(len(truth), int), 40)
    assert len(np.unique(found)) == 40
    pure = sum(np.bincount(truth[found == group]).max() for group in range(40)) / len(truth)
    assert pure > 0.95


def test_groups_stay_inside_parts_and_number_as_asked():
    graph, truth = planted(seed=1)
    parts = truth % 3
    for n_groups in (399, 200, 60, 3):
        found = fine_groups(graph, parts, n_groups)
        assert found.max() + 1 == len(np.unique(found)) >= n_groups
        assert all(len(np.unique(parts[found == group])) == 1 for group in range(found.max() + 1))
        if n_groups >= 200:
            assert found.max() + 1 == n_groups


def test_rows_that_no_edge_ties_inside_their_part_stay_alone():
    graph = ArrayGraph(np.array([[1, 2], [0, 2], [3, 0], [2, 1]]), np.array([[1, 0.5], [1, 0.5], [0.9, 0.1], [0.0, 0]]))
    assert fine_groups(graph, np.array([0, 0, 0, 1]), 1).tolist() == [0, 0, 0, 1]


def test_blocks_do_not_matter(monkeypatch):
    graph, truth = planted(seed=2)
    whole = fine_groups(graph, np.zeros(len(truth), int), 50)
    monkeypatch.setattr("distspectral.graph.fine.BLOCK_EDGES", 70)
    np.testing.assert_array_equal(fine_groups(graph, np.zeros(len(truth), int), 50), whole)


@pytest.mark.parametrize("seed", range(3))
def test_the_first_pass_merges_the_pairs_that_are_nearest_to_each_other(seed):
    rng = np.random.default_rng(seed)
    neighbors, affinities = rng.integers(0, 12, (12, 3)), rng.random((12, 3)).astype(np.float32)
    ties = np.zeros((12, 12))
    for row in range(12):
        for other, affinity in zip(neighbors[row], affinities[row], strict=True):
            if other != row:
                ties[row, other] = ties[other, row] = max(ties[row, other], affinity)
    best = ties.argmax(1)
    mutual = [(i, int(best[i])) for i in range(12) if ties[i].any() and best[best[i]] == i and i < best[i]]
    found = fine_groups(ArrayGraph(neighbors, affinities), np.zeros(12, int), 12 - len(mutual))
    merged = [tuple(np.flatnonzero(found == group)) for group in range(found.max() + 1)]
    assert sorted(group for group in merged if len(group) > 1) == sorted(mutual)

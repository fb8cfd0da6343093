"""Nodes of one tree matched with those of another: against sets of rows compared one by one."""

from __future__ import annotations

import numpy as np

from distspectral.spectral.stability import best_matches, summed_up
from distspectral.spectral.tree import grown

N_ROWS = 60


def tree(n_leaves, seed):
    """Return a tree over random affinities, and the leaf of each row."""
    rng = np.random.default_rng(seed)
    drawn, leaves = rng.random((n_leaves, n_leaves)), rng.integers(0, n_leaves, N_ROWS)
    return grown(drawn + drawn.T, np.bincount(leaves, minlength=n_leaves), np.zeros(n_leaves, np.int64)), leaves


def members(grown_tree, leaves):
    """Return the rows of every node as sets."""
    found = [set(np.flatnonzero(leaves == leaf)) for leaf in range(grown_tree.n_leaves)]
    for left, right in grown_tree.children:
        found.append(found[left] | found[right])
    return found


def test_a_match_is_the_best_of_all_nodes():
    (one, leaves), (other, others) = tree(9, 0), tree(5, 1)
    found = best_matches(one.children, leaves, other.children, others)
    for node, own in enumerate(members(one, leaves)):
        expected = [len(own & theirs) / len(own | theirs) for theirs in members(other, others) if own or theirs]
        assert np.isclose(found[node], max(expected))
    assert found[-1] == 1


def test_a_tree_is_found_in_itself_whatever_the_numbers_of_its_leaves():
    one, leaves = tree(9, 2)
    again = grown(np.eye(1), np.array([N_ROWS]), np.array([0]))
    assert (best_matches(one.children, leaves, one.children, leaves) == 1).all()
    alone = best_matches(one.children, leaves, again.children, np.zeros(N_ROWS, np.int64))
    np.testing.assert_allclose(alone, one.rows / N_ROWS)


def test_nodes_without_rows_match_nothing():
    one, leaves = tree(9, 3)
    leaves = np.where(leaves == 4, 5, leaves)
    found = best_matches(one.children, leaves, one.children, leaves)
    assert (found[np.arange(17) != 4] == 1).all()
    assert summed_up(one.children, np.bincount(leaves, minlength=9))[-1] == N_ROWS

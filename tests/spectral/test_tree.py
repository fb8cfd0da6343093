"""Merging small clusters: each step against a search through all pairs, and what a cut of the tree says."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from scipy import sparse
from scipy.cluster.hierarchy import fcluster, is_monotonic, is_valid_linkage

from distspectral.errors import TooManyClustersError
from distspectral.spectral.diagnostics import modularity, normalized_cut
from distspectral.spectral.tree import SHARING, Tree, cluster_facts, conductances, grown, merged_into, mergers, refined

GROUPS = np.zeros(14, np.int64)


def affinities(seed, n_small=30, density=0.3):
    rng = np.random.default_rng(seed)
    drawn = np.triu(rng.random((n_small, n_small)) * (rng.random((n_small, n_small)) < density))
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
            joined = between[np.ix_(merged == i, merged == j)].sum() > 0
            left.append(modularity(tried[heads], tried[tails], weights, len(between)) - 2 * (not joined))
        i, j = pairs[int(np.argmax(left))]
        merged[merged == j] = i
    return merged


def same(first, second):
    return len(set(zip(first, second, strict=True))) == len(set(first)) == len(set(second))


@pytest.mark.parametrize("seed", range(4))
def test_every_step_without_sharing_merges_the_pair_that_gains_most_modularity(seed):
    between = affinities(seed, 14)
    for n_clusters in range(1, 15):
        found = merged_into(between, n_clusters, GROUPS, sharing=0)
        assert np.unique(found).tolist() == list(range(n_clusters))
        assert same(found, by_all_pairs(between, n_clusters, GROUPS)), n_clusters


@pytest.mark.parametrize("sharing", [0.5, SHARING, 1])
def test_every_step_merges_the_pair_of_most_gain(sharing):
    between = affinities(1, 14) / affinities(1, 14).sum()
    members = [[leaf] for leaf in range(14)]
    for (kept, gone), affinity in zip(*mergers(between, [GROUPS], 1, sharing), strict=True):
        gains = {}
        for i in range(14):
            for j in range(14):
                if i != j and members[i] and members[j]:
                    mass_i, mass_j = between[members[i]].sum(), between[members[j]].sum()
                    across = between[np.ix_(members[i], members[j])].sum()
                    gains[i, j] = (across - mass_i * mass_j) / (mass_i * mass_j) ** sharing if across else -2
                    if (i, j) == (kept, gone):
                        assert affinity == pytest.approx(across / (mass_i * mass_j))
        assert gains[kept, gone] == pytest.approx(max(gains.values()))
        members[kept] += members[gone]
        members[gone] = []


@pytest.mark.parametrize("n_clusters", [3, 5])
def test_groups_are_never_merged_however_much_that_gains(n_clusters):
    between, groups = affinities(0, 12), np.arange(12) % 3
    found = merged_into(between, n_clusters, groups, sharing=0)
    assert all(len(np.unique(groups[found == cluster])) == 1 for cluster in range(n_clusters))
    assert same(found, by_all_pairs(between, n_clusters, groups))


def test_affinities_stay_as_they_were():
    between, groups = affinities(0), np.arange(30) % 2
    kept = between.copy()
    merged_into(between, 4, groups, sharing=0)
    grown(between, np.ones(30, np.int64), groups)
    np.testing.assert_array_equal(between, kept)
    assert groups.tolist() == [0, 1] * 15


# ---- trees -----------------------------------------------------------------------------------------------------


ROWS, CLUSTERS = np.arange(30) + 1, np.arange(30) % 4


@pytest.fixture(scope="module")
def tree():
    return grown(sparse.csr_array(affinities(2)), ROWS, CLUSTERS)


def test_a_tree_is_a_linkage_of_scipy(tree):
    linkage = tree.linkage()
    assert is_valid_linkage(linkage)
    assert is_monotonic(linkage)
    assert same(fcluster(linkage, 12, "maxclust"), tree.labels(12))


def test_the_runs_own_clusters_are_a_cut_with_their_numbers(tree):
    assert tree.labels(4).tolist() == CLUSTERS.tolist()
    finer, coarser = tree.labels(9), tree.labels(2)
    assert all(len(np.unique(CLUSTERS[finer == cluster])) == 1 for cluster in range(9))
    assert all(len(np.unique(coarser[cluster == CLUSTERS])) == 1 for cluster in range(4))


def test_a_cut_undoes_the_last_mergers():
    children = np.array([[0, 1], [2, 5], [3, 4], [6, 7]])  # ((0, 1), 2) and (3, 4)
    nothing = np.zeros(9)
    five = Tree(children, np.ones(9, np.int64), nothing, nothing, np.zeros(4), nothing, np.arange(5))
    tops = [[8] * 5, [6, 6, 6, 7, 7], [6, 6, 6, 3, 4], [5, 5, 2, 3, 4], [0, 1, 2, 3, 4]]
    assert [five.tops(n_clusters).tolist() for n_clusters in range(1, 6)] == tops
    one = Tree(children[:0], np.ones(1, np.int64), nothing[:1], nothing[:1], np.zeros(0), nothing[:1], np.arange(1))
    assert one.tops(1).tolist() == [0]


@pytest.mark.parametrize("n_clusters", [1, 2, 7, 30])
def test_other_cuts_are_numbered_by_falling_rows(tree, n_clusters):
    sizes = np.bincount(tree.labels(n_clusters), ROWS)
    assert len(sizes) == n_clusters
    assert sizes.tolist() == sorted(sizes, reverse=True)


@pytest.mark.parametrize("n_clusters", [1, 2, 4, 7, 30])
def test_clusters_of_a_cut_are_nodes(tree, n_clusters):
    nodes, labels = tree.nodes(n_clusters), tree.labels(n_clusters)
    assert tree.rows[nodes].tolist() == np.bincount(labels, ROWS).tolist()
    if n_clusters == 30:
        assert nodes[labels].tolist() == list(range(30))


def test_more_clusters_than_leaves_are_refused(tree):
    with pytest.raises(TooManyClustersError, match="31 clusters were asked of a tree of 30 leaves"):
        tree.labels(31)


def test_nodes_say_what_lies_below_them(tree):
    between = affinities(2)
    for node, parent in enumerate(tree.parents()):
        assert parent == -1 or node in tree.children[parent - 30]
    for n_clusters in (1, 3, 10):
        labels = tree.labels(n_clusters)
        facts = cluster_facts(between, ROWS, labels)
        tops = [
            node for node in range(59) if node < 59 - n_clusters + 1 and tree.parents()[node] >= 59 - n_clusters + 1
        ]
        tops = tops or [58]
        assert sorted(tree.rows[tops]) == sorted(facts["rows"])
        np.testing.assert_allclose(sorted(tree.conductance[tops]), sorted(facts["conductance"]), atol=1e-12)
        np.testing.assert_allclose(tree.mass[tops].sum(), between.sum())


def test_facts_of_a_cut_are_those_of_its_edges():
    between, labels = affinities(3), np.arange(30) % 3
    facts = cluster_facts(between, ROWS, labels)
    heads, tails = np.nonzero(between)
    weights = between[heads, tails]
    cut = normalized_cut(labels[heads], labels[tails], weights, 3)
    mass = np.array([between[labels == cluster].sum() for cluster in range(3)])
    leaving = facts["conductance"] * np.minimum(mass, mass.sum() - mass)
    assert (leaving / mass).sum() == pytest.approx(cut)
    assert facts["share"].sum() == pytest.approx(1)
    for cluster, (nearest, affinity) in enumerate(zip(facts["nearest"], facts["affinity"], strict=True)):
        across = between[np.ix_(labels == cluster, labels == nearest)].sum()
        assert affinity == pytest.approx(across * mass.sum() / mass[cluster] / mass[nearest])
    assert cluster_facts(between, ROWS, np.zeros(30, np.int64))["nearest"] == [-1]


def test_a_cluster_is_in_as_many_pieces_as_its_edges_leave():
    between = np.kron(np.diag([1.0, 1.0, 1.0]), np.ones((4, 4)))
    rows, labels = np.ones(12, np.int64), np.repeat([0, 0, 1], 4)
    assert cluster_facts(between, rows, labels)["pieces"].tolist() == [2, 1]
    between[0, 4] = between[4, 0] = 1e-9
    assert cluster_facts(between, rows, labels)["pieces"].tolist() == [1, 1]
    between[0, 4] = between[4, 0] = 0
    between[0, 8] = between[8, 0] = between[4, 8] = between[8, 4] = 1  # by way of another cluster
    assert cluster_facts(between, rows, labels)["pieces"].tolist() == [2, 1]
    rows[4:8] = 0  # leaves without rows are no piece
    assert cluster_facts(between, rows, labels)["pieces"].tolist() == [1, 1]


def test_what_no_edge_joins_is_merged_last():
    between = np.kron(np.eye(3), np.ones((4, 4))) + 1e-3 * np.kron([[0, 1, 0], [1, 0, 0], [0, 0, 0]], np.ones((4, 4)))
    tree = grown(between, np.ones(12, np.int64), np.arange(12) // 4)
    assert tree.affinity[-1] == 0
    assert tree.affinity[-2] == pytest.approx(1e-3 * 48.032 / (4 * 4.004**2) * 4, rel=0.1)
    assert tree.height[-1] == 1
    assert same(tree.labels(2), np.arange(12) // 8)


def test_parts_in_one_cluster_do_not_raise_what_comes_after():
    between = np.kron(np.eye(3), np.ones((2, 2))) + 0.1 * np.kron([[0, 0, 1], [0, 0, 0], [1, 0, 0]], np.ones((2, 2)))
    tree = grown(between, np.ones(6, np.int64), np.array([0, 0, 0, 0, 1, 1]))
    assert tree.affinity[3] == 0, "two parts are one of the run's clusters"
    assert 0 < tree.height[-2] < tree.height[-1] < 1


def test_a_threshold_leaves_no_pair_of_more_affinity(tree):
    assert tree.n_above(0) == 1
    assert tree.n_above(1e9) == 30
    n_clusters = tree.n_above(0.8)
    assert 1 < n_clusters < 30
    assert (tree.affinity[: 30 - n_clusters] >= 0.8).all()
    assert tree.affinity[30 - n_clusters] < 0.8


def test_clusters_of_so_many_rows_are_as_many_as_can_be(tree):
    n_clusters = tree.n_of_rows(40)
    assert np.bincount(tree.labels(n_clusters), ROWS).min() >= 40
    assert np.bincount(tree.labels(n_clusters + 1), ROWS).min() < 40
    assert tree.n_of_rows(10**6) == 1
    assert tree.n_of_rows(0) == 30


def test_leaves_without_an_edge_and_a_single_leaf_are_a_tree_too():
    alone = affinities(4, 6)
    alone[5], alone[:, 5] = 0, 0
    tree = grown(alone, np.arange(6), np.array([0, 0, 0, 1, 1, 1]))
    assert np.isfinite(tree.height).all()
    assert tree.conductance[5] == 1
    single = grown(np.ones((1, 1)), np.array([3]), np.array([0]))
    assert single.labels(1).tolist() == [0]
    assert single.linkage().shape == (0, 4)
    assert pickle.loads(pickle.dumps(single)).rows.tolist() == [3]


# ---- fine leaves -----------------------------------------------------------------------------------------------


def fine_case(seed=0):
    """Return affinities between 24 fine leaves of 6 coarse ones, their rows and owners, and the coarse tree."""
    between, owners, rows = affinities(seed, 24, 0.7), np.arange(24) % 6, np.arange(24) + 1
    one_hot = np.eye(6)[owners]
    coarse = grown(one_hot.T @ between @ one_hot, (one_hot.T @ rows).astype(np.int64), np.arange(6) % 2)
    within = sparse.csr_array(np.where(owners[:, None] == owners, between, 0))
    return between, within, rows, owners, coarse


def test_a_refined_tree_is_a_linkage_whose_upper_part_is_the_coarse_one():
    between, within, rows, owners, coarse = fine_case()
    fine = refined(coarse, within, between.sum(1), rows, owners)
    assert is_valid_linkage(fine.linkage())
    assert is_monotonic(fine.linkage())
    for n_clusters in range(1, 7):
        np.testing.assert_array_equal(fine.labels(n_clusters), coarse.labels(n_clusters)[owners])
    for n_clusters in range(6, 25):
        labels = fine.labels(n_clusters)
        assert len(np.unique(labels)) == n_clusters
        assert all(len(np.unique(owners[labels == cluster])) == 1 for cluster in range(n_clusters))


def test_nodes_of_a_refined_tree_say_what_lies_below_them():
    between, within, rows, owners, coarse = fine_case(1)
    fine = refined(coarse, within, between.sum(1), rows, owners)
    for n_clusters in (1, 2, 6, 9, 24):
        labels, nodes = fine.labels(n_clusters), fine.nodes(n_clusters)
        facts = cluster_facts(between, rows, labels)
        assert fine.rows[nodes].tolist() == facts["rows"].tolist()
        np.testing.assert_allclose(fine.conductance[nodes], facts["conductance"], atol=1e-9)
        mass = np.bincount(labels, between.sum(1))
        np.testing.assert_allclose(fine.mass[nodes], mass)
    last = fine.labels(24 - 1)  # the first merger
    left, right = fine.children[0]
    assert last[left] == last[right]
    expected = between[left, right] * between.sum() / between.sum(1)[left] / between.sum(1)[right]
    assert fine.affinity[0] == pytest.approx(expected)


def test_a_small_rest_is_not_nothing():
    np.testing.assert_allclose(conductances(np.array([25.0, 25.0]), np.array([1e7, 50.0]), 1e7 + 50), [0.5, 0.5])
    np.testing.assert_allclose(conductances(np.zeros(1), np.array([3.0]), 3.0), [0])
    np.testing.assert_allclose(conductances(np.zeros(2), np.zeros(2), 0.0), [1, 1])

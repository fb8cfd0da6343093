from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.linalg
import torch
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from sklearn.metrics.cluster import contingency_matrix

from distspectral.spectral.diagnostics import (
    cut_share,
    label_agreement,
    modularity,
    normalized_cut,
    sin2_principal_angles,
    suggested_n_clusters,
)


@pytest.fixture
def bases():
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.standard_normal((50, 4))), torch.from_numpy(rng.standard_normal((50, 3)))


def test_angles_are_those_of_scipy(bases):
    found = sin2_principal_angles(*bases)
    expected = np.sort(np.sin(scipy.linalg.subspace_angles(*(basis.numpy() for basis in bases))) ** 2)
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_weighted_angles_are_those_of_the_weighted_inner_product(bases):
    mass = torch.from_numpy(np.random.default_rng(1).uniform(0.1, 3, 50))
    root = mass.sqrt()[:, None]
    torch.testing.assert_close(sin2_principal_angles(*bases, mass), sin2_principal_angles(*(b * root for b in bases)))


def test_angles_do_not_depend_on_the_basis_and_vanish_inside_a_space(bases):
    a, _ = bases
    mixing = torch.from_numpy(np.random.default_rng(2).standard_normal((4, 2)))
    assert float(sin2_principal_angles(a, a @ mixing).max()) < 1e-12


def test_angles_between_planes_are_known():
    angle = 0.3
    a = torch.tensor([[1.0, 0], [0, 1], [0, 0], [0, 0]])
    b = torch.tensor([[np.cos(angle), 0], [0, 0], [np.sin(angle), 0], [0, 1.0]])
    np.testing.assert_allclose(sin2_principal_angles(a, b), [np.sin(angle) ** 2, 1], atol=1e-7)


@pytest.mark.parametrize(
    ("eigenvalues", "maximum", "expected"),
    [
        ([0, 0.01, 0.012, 0.5, 0.55], None, 3),
        ([0, 0.01, 0.4, 0.5, 0.55], None, 2),
        ([0, 0, 0, 0.3, 0.4], None, 3),  # three components
        ([0, 0.1, 0.11, 0.12, 0.9], 3, 2),  # the large gap is beyond the maximum
        ([-1e-17, 0.01, 0.012, 0.5], None, 3),
        ([0, 0.5], None, 1),
        ([0, 0.1, 0.2], None, 2),
        ([0.0], None, 1),
    ],
)
def test_clusters_are_counted_at_the_largest_relative_gap(eigenvalues, maximum, expected):
    assert suggested_n_clusters(np.array(eigenvalues), maximum) == expected


def test_gap_after_the_constant_alone_is_never_chosen():
    assert suggested_n_clusters(np.array([0.0, 0.5, 0.51, 0.6])) == 3


def brute_force_accuracy(contingency):
    size = max(contingency.shape)
    square = np.zeros((size, size))
    square[: contingency.shape[0], : contingency.shape[1]] = contingency
    best = max(sum(square[i, j] for i, j in enumerate(order)) for order in itertools.permutations(range(size)))
    return best / contingency.sum()


@pytest.mark.parametrize(("n_classes", "n_clusters"), [(4, 4), (3, 5), (5, 3), (1, 1), (1, 4), (4, 1)])
@pytest.mark.parametrize("noise", [0.0, 0.4, 1.0])
def test_agreement_equals_scikit_learn_and_brute_force(n_classes, n_clusters, noise):
    rng = np.random.default_rng(3)
    labels = rng.integers(0, n_classes, 300)
    clusters = np.where(rng.random(300) < noise, rng.integers(0, n_clusters, 300), (labels * 2 + 1) % n_clusters)
    contingency = contingency_matrix(labels, clusters)
    found = label_agreement(contingency)
    assert found["acc"] == pytest.approx(brute_force_accuracy(contingency), abs=1e-12)
    assert found["nmi"] == pytest.approx(normalized_mutual_info_score(labels, clusters), abs=1e-10)
    assert found["ari"] == pytest.approx(adjusted_rand_score(labels, clusters), abs=1e-10)


def test_empty_clusters_change_nothing():
    contingency = np.array([[5, 1, 0], [2, 7, 0]])
    assert label_agreement(contingency) == pytest.approx(label_agreement(contingency[:, :2]))


def test_zeros_that_differ_by_rounding_are_no_gap():
    assert suggested_n_clusters(np.array([0.0, 1e-18, 3e-16, 2e-15, 0.3, 0.4])) == 4


def test_more_components_than_are_considered_are_all_that_are_considered():
    assert suggested_n_clusters(np.array([0.0] * 8 + [0.5]), 5) == 5


def test_a_spectrum_that_is_complete_ends_in_a_gap():
    assert suggested_n_clusters(np.zeros(2), is_complete=True) == 2
    assert suggested_n_clusters(np.zeros(8), is_complete=True) == 8
    assert suggested_n_clusters(np.array([0.0, 0.0, 0.9]), is_complete=True) == 2


def test_the_normalised_cut_is_that_of_the_symmetrised_matrix():
    rng = np.random.default_rng(0)
    directed, clusters = rng.uniform(size=(30, 30)), rng.integers(0, 4, 30)
    indicator = np.eye(4)[clusters]
    between = indicator.T @ (directed + directed.T) @ indicator
    expected = np.sum(1 - np.diag(between) / between.sum(1))
    heads, tails = np.repeat(clusters, 30), np.tile(clusters, 30)
    assert normalized_cut(heads, tails, directed.ravel(), 4) == pytest.approx(expected)
    assert normalized_cut(heads, tails, directed.ravel(), 5) == pytest.approx(expected + 1), "one is empty"


def test_modularity_and_the_share_cut_are_those_of_the_symmetrised_matrix():
    rng = np.random.default_rng(0)
    directed, clusters = rng.uniform(size=(30, 30)), rng.integers(0, 4, 30)
    between = np.eye(4)[clusters].T @ (directed + directed.T) @ np.eye(4)[clusters]
    between /= between.sum()
    heads, tails, weights = np.repeat(clusters, 30), np.tile(clusters, 30), directed.ravel()
    assert cut_share(heads, tails, weights) == pytest.approx(1 - np.trace(between))
    expected = np.trace(between) - np.square(between.sum(1)).sum()
    assert modularity(heads, tails, weights, 5) == pytest.approx(expected), "an empty one changes nothing"


def test_clusters_that_no_edge_joins_have_a_cut_of_zero():
    clusters = np.array([0, 0, 1, 1])
    assert normalized_cut(clusters, clusters, np.ones(4), 2) == 0

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from distspectral.clustering.config import ClusterConfig
from distspectral.clustering.k_means import fit_centroids
from distspectral.errors import TooManyClustersError
from tests.clustering.points import blobs, uneven_parts


def test_centroids_are_the_means_of_separate_blobs():
    points, centres = blobs()
    found = fit_centroids(points, 3, ClusterConfig(), seed=0).centroids
    means = np.stack([points[k::3].mean(0) for k in range(3)])
    order = np.linalg.norm(found[:, None] - centres[None], axis=2).argmin(0)
    np.testing.assert_allclose(found[order], means, atol=1e-5)


def test_the_same_seed_gives_the_same_centroids():
    points = np.random.default_rng(1).normal(size=(200, 4)).astype(np.float32)
    first, again = (fit_centroids(points, 5, ClusterConfig(), seed=3).centroids for _ in range(2))
    np.testing.assert_array_equal(first, again)


def test_as_many_clusters_as_rows_are_possible_and_more_are_refused():
    points = np.arange(8, dtype=np.float32).reshape(4, 2)
    assert len(fit_centroids(points, 4, ClusterConfig(), seed=0).centroids) == 4
    with pytest.raises(TooManyClustersError, match=r"5.*only 4 rows") as refused:
        fit_centroids(points, 5, ClusterConfig(), seed=0)
    assert refused.value.parameters == ("cluster.n_clusters",)


def test_a_bad_start_of_k_means_is_rarer_than_one_seed_in_ten():
    centres = np.random.default_rng(5).normal(size=(12, 3))
    points = (centres[np.arange(240) % 12] + np.random.default_rng(6).normal(scale=0.05, size=(240, 3))).astype("f4")
    fits = [fit_centroids(points, 12, ClusterConfig(restarts=2, iterations=20), seed) for seed in range(20)]
    inertias = np.array([np.square(points - fit.centroids[fit.labels]).sum() for fit in fits])
    assert np.mean(inertias > 1.01 * inertias.min()) <= 0.1, inertias


def test_restarts_agree_on_separate_blobs_and_not_on_noise():
    fit = fit_centroids(blobs()[0], 3, ClusterConfig(restarts=4), seed=0)
    assert (fit.n_runs, fit.n_lowest, fit.rand_index) == (4, 4, 1.0)
    noise = np.random.default_rng(0).normal(size=(300, 5)).astype(np.float32)
    fit = fit_centroids(noise, 7, ClusterConfig(restarts=4), seed=0)
    assert fit.n_lowest < 4
    assert fit.rand_index < 0.9
    assert fit_centroids(noise, 7, ClusterConfig(restarts=1), seed=0).rand_index == 1


@pytest.mark.parametrize("sizes", [(300, 20, 20), (1000, 20), (1000, 200, 50, 20), (20, 300, 20)])
def test_parts_are_never_merged_while_another_is_split(sizes):
    points, parts = uneven_parts(sizes, 0.6)
    fit = fit_centroids(points, len(sizes), ClusterConfig(restarts=2), 0, parts)
    assert fit.n_parts == len(sizes)
    assert adjusted_rand_score(parts, fit.labels) == 1
    nearest = np.linalg.norm(points[:, None] - fit.centroids, axis=2).argmin(1)
    np.testing.assert_array_equal(nearest, fit.labels)


def test_clusters_beyond_the_parts_split_the_part_that_is_spread():
    points, parts = uneven_parts((300, 20, 20), 0.6)
    fit = fit_centroids(points, 5, ClusterConfig(restarts=2), 0, parts)
    assert [len(np.unique(fit.labels[parts == part])) for part in range(3)] == [3, 1, 1]


def test_of_more_parts_than_clusters_whole_ones_are_merged():
    points, parts = uneven_parts((300, 40, 40, 40), 0.6)
    fit = fit_centroids(points, 2, ClusterConfig(restarts=2), 0, parts)
    assert fit.n_parts == 4
    assert [len(np.unique(fit.labels[parts == part])) for part in range(4)] == [1, 1, 1, 1]
    assert len(np.unique(fit.labels)) == 2


@pytest.mark.parametrize(("n_specks", "in_speck"), [(12, 3), (1, 12)])
def test_fragments_are_owed_no_cluster(n_specks, in_speck):
    points, parts = uneven_parts((500, 500, *(in_speck,) * n_specks), 0.1)
    joined = np.maximum(parts, 1)  # the two large ones are one part now
    fit = fit_centroids(points, 2, ClusterConfig(restarts=2), 0, joined)
    assert fit.n_parts == 1
    assert fit.fragments.tolist() == [False] * 1000 + [True] * n_specks * in_speck
    assert adjusted_rand_score(parts[:1000], fit.labels[:1000]) == 1


def test_a_part_of_one_row_or_of_equal_rows_gets_no_more_centroids_than_rows():
    points, parts = np.repeat(np.eye(3, dtype=np.float32), 2, axis=0), np.repeat(np.arange(3), 2)
    fit = fit_centroids(points, 5, ClusterConfig(restarts=2), 0, parts)
    assert fit.centroids.shape == (5, 3)
    assert [len(set(fit.labels[parts == part]) & set(fit.labels[parts != part])) for part in range(3)] == [0, 0, 0]

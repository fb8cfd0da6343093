from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import adjusted_rand_score

from distspectral.clusters import (
    ClusterConfig,
    diffusion_scale,
    diffusion_time,
    fit_centroids,
    merged_clusters,
    micro_clusters,
)
from distspectral.errors import TooManyClustersError
from distspectral.models.assigner import Assigner, clustering_coordinates


def blobs():
    rng = np.random.default_rng(0)
    centres = np.array([[0, 0], [10, 0], [0, 10]], np.float32)
    return (centres[np.arange(90) % 3] + rng.normal(scale=0.3, size=(90, 2))).astype(np.float32), centres


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


def uneven_parts(sizes, spread):
    """Rows of length 1 around orthogonal axes, one axis per part; the first part is spread over further axes."""
    rng = np.random.default_rng(0)
    parts = np.repeat(np.arange(len(sizes)), sizes)
    points = np.hstack([np.eye(len(sizes))[parts], np.zeros((len(parts), 3))])
    points[parts == 0, -3:] = rng.normal(scale=spread, size=(sizes[0], 3))
    return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32), parts


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


def test_fragments_are_owed_no_cluster():
    points, parts = uneven_parts((500, 500, *(3,) * 12), 0.1)
    joined = np.maximum(parts, 1)  # the two large ones are one part now
    fit = fit_centroids(points, 2, ClusterConfig(restarts=2), 0, joined)
    assert fit.n_parts == 1
    assert fit.fragments.tolist() == [False] * 1000 + [True] * 36
    assert adjusted_rand_score(parts[:1000], fit.labels[:1000]) == 1


def test_a_part_of_one_row_or_of_equal_rows_gets_no_more_centroids_than_rows():
    points, parts = np.repeat(np.eye(3, dtype=np.float32), 2, axis=0), np.repeat(np.arange(3), 2)
    fit = fit_centroids(points, 5, ClusterConfig(restarts=2), 0, parts)
    assert fit.centroids.shape == (5, 3)
    assert [len(set(fit.labels[parts == part]) & set(fit.labels[parts != part])) for part in range(3)] == [0, 0, 0]


def by_distance(micro):
    """Affinities between micro-clusters: one for each pair of rows, that falls with the distance of the centroids."""
    squared = np.square(micro.centroids[:, None] - micro.centroids).sum(2).astype(np.float64)
    sizes = np.bincount(micro.labels[micro.labels >= 0], minlength=len(squared))
    return np.outer(sizes, sizes) * np.exp(-4 * squared)


@pytest.mark.parametrize(("sizes", "n_clusters"), [((300, 30, 30), 3), ((300, 30, 30), 5), ((20, 300, 20), 3)])
def test_micro_clusters_of_different_parts_are_never_merged(sizes, n_clusters):
    points, parts = uneven_parts(sizes, 0.6)
    micro = micro_clusters(points, n_clusters, 0, parts)
    assert all(len(np.unique(parts[micro.labels == label])) == 1 for label in np.unique(micro.labels))
    affinities = np.ones((len(micro.centroids), len(micro.centroids)))  # all that would merge them
    fit = merged_clusters(points, micro, affinities, n_clusters)
    assert fit.n_parts == 3
    assert len(np.unique(fit.labels)) == n_clusters
    assert all(len(np.unique(parts[fit.labels == label])) == 1 for label in range(n_clusters))


def test_micro_clusters_are_inside_parts_that_the_coordinates_do_not_tell_apart():
    points, parts = np.random.default_rng(0).normal(size=(200, 2)).astype(np.float32), np.arange(200) % 2
    micro = micro_clusters(points, 2, 0, parts)
    assert all(len(np.unique(parts[micro.labels == label])) == 1 for label in np.unique(micro.labels))


def test_merged_clusters_are_the_means_of_their_rows_and_every_row_goes_to_the_nearest():
    points, centres = blobs()
    micro = micro_clusters(points, 3, 0)
    assert len(micro.centroids) == 18, "five rows each"
    fit = merged_clusters(points, micro, by_distance(micro), 3)
    means = np.stack([points[k::3].mean(0) for k in range(3)])
    order = np.linalg.norm(fit.centroids[:, None] - centres[None], axis=2).argmin(0)
    np.testing.assert_allclose(fit.centroids[order], means, atol=1e-5)
    np.testing.assert_array_equal(fit.labels, np.linalg.norm(points[:, None] - fit.centroids, axis=2).argmin(1))


def test_fragments_and_micro_clusters_without_edges_have_no_say():
    points, parts = uneven_parts((500, 500, *(3,) * 12), 0.1)
    micro = micro_clusters(points, 2, 0, np.maximum(parts, 1))
    np.testing.assert_array_equal(micro.labels >= 0, parts < 2)
    affinities = by_distance(micro)
    affinities[micro.labels[0]] = affinities[:, micro.labels[0]] = 0
    fit = merged_clusters(points, micro, affinities, 2)
    counted = (parts < 2) & (micro.labels != micro.labels[0])
    assert adjusted_rand_score(parts[parts < 2], fit.labels[parts < 2]) == 1
    means = [points[counted & (parts == part)].mean(0) for part in range(2)]
    np.testing.assert_allclose(fit.centroids[fit.labels[[0, 500]]], means, atol=1e-5)
    assert merged_clusters(points, micro, np.zeros_like(affinities), 2) is None


def test_micro_clusters_are_bounded_and_refused_where_they_leave_no_choice(monkeypatch):
    points, parts = uneven_parts((300, 40, 40), 0.6)
    assert len(micro_clusters(points, 3, 0).centroids) == 60
    assert micro_clusters(points, 1, 0) is None
    assert micro_clusters(points, 2, 0, parts) is None, "more parts than clusters"
    assert len(micro_clusters(points, 19, 0).centroids) == 76
    assert micro_clusters(points, 20, 0) is None, "five rows each are fewer than four for each cluster"
    monkeypatch.setattr("distspectral.clusters.MOST_MICRO_CLUSTERS", 40)
    assert len(micro_clusters(points, 10, 0).centroids) == 40
    assert micro_clusters(points, 11, 0) is None


def test_diffusion_shrinks_functions_by_their_eigenvalue():
    np.testing.assert_allclose(diffusion_scale(np.array([0, 0.1, 0.5]), 10, 2), [1, 0.9**10, 0.5**10], rtol=1e-5)
    np.testing.assert_array_equal(diffusion_scale(np.array([0, 0.3, 1.4]), 0, 2), [1, 1, 1])
    assert diffusion_scale(np.array([1.4]), 2, 1)[0] < 1e-11, "beyond 1 nothing is left"
    # unless nothing below 1 is there, as with three rows: then all functions beyond the constant count alike
    np.testing.assert_allclose(diffusion_scale(np.array([0, 1.2, 1.8]), "auto", 3), [1, 0.5, 0.5], rtol=1e-5)


@pytest.mark.parametrize("n_clusters", [1, 2, 3, 7])
def test_by_default_the_first_function_beyond_the_clusters_counts_half(n_clusters):
    values = np.array([0, 0.01, 0.04, 0.05, 0.3])
    scale = diffusion_scale(values, "auto", n_clusters)
    assert scale[min(n_clusters, 4)] == pytest.approx(0.5, rel=1e-5)
    np.testing.assert_allclose(scale, diffusion_scale(values, diffusion_time(values, n_clusters), 99), rtol=1e-6)


def test_functions_of_components_alone_survive_where_there_are_more_than_clusters():
    np.testing.assert_allclose(diffusion_scale(np.array([0, 0, 0, 0.01]), "auto", 2), [1, 1, 1, 0], atol=1e-6)


def test_normalised_rows_have_length_one_and_a_zero_row_stays():
    rows = clustering_coordinates(torch.tensor([[3.0, 4.0], [0.0, 0.0]]), torch.ones(2), True)
    torch.testing.assert_close(rows, torch.tensor([[0.6, 0.8], [0.0, 0.0]]))


@pytest.mark.parametrize("normalize_rows", [True, False])
def test_assignment_is_the_nearest_centroid_and_its_distance(normalize_rows):
    generator = torch.Generator().manual_seed(0)
    embedding = torch.randn(50, 3, generator=generator)
    scale, centroids = torch.tensor([1.0, 0.5, 0.1]), torch.randn(4, 3, generator=generator)
    cluster, distance = Assigner(scale, centroids, normalize_rows, 1.0)(embedding)
    distances = torch.cdist(clustering_coordinates(embedding, scale, normalize_rows), centroids)
    assert torch.equal(cluster, distances.argmin(1))
    torch.testing.assert_close(distance, distances.min(1).values, atol=1e-4, rtol=1e-4)

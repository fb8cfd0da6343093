from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from distspectral.clustering.micro_clusters import merged_clusters, micro_clusters
from tests.clustering.points import blobs, uneven_parts


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
    monkeypatch.setattr("distspectral.clustering.micro_clusters.MOST_MICRO_CLUSTERS", 40)
    assert len(micro_clusters(points, 10, 0).centroids) == 40
    assert micro_clusters(points, 11, 0) is None

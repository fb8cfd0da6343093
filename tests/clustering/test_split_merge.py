"""Exchanges: which one lowers the normalised cut most, and when it is made."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from sklearn.metrics import adjusted_rand_score

from distspectral.clustering.k_means import Clusters, means_of_groups
from distspectral.clustering.sampled_edges import SampledEdges
from distspectral.clustering.split_merge import best_exchange, exchanged
from distspectral.graph.config import AffinityConfig, GraphConfig
from distspectral.graph.knn import knn_graph
from distspectral.spectral.diagnostics import normalized_cut
from distspectral.storage.rows.vectors import ArrayVectors

RNG = np.random.default_rng(0)


def cut_of(affinities, clusters):
    heads, tails = np.nonzero(affinities)
    return normalized_cut(clusters[heads], clusters[tails], affinities[heads, tails], int(clusters.max()) + 1)


@pytest.mark.parametrize("seed", range(5))
def test_the_best_of_all_exchanges_is_found_and_its_gain_is_that_of_the_cut(seed):
    affinities = np.random.default_rng(seed).random((10, 10)) ** 3
    affinities += affinities.T
    before = np.arange(10) // 2
    gains = {}
    for split, (kept, freed) in itertools.product(range(5), itertools.combinations(range(5), 2)):
        if split not in (kept, freed):
            after = before.copy()
            after[after == freed] = kept
            after[2 * split + 1] = freed
            gains[split, kept, freed] = cut_of(affinities, before) - cut_of(affinities, after)
    split, kept, freed, gain = best_exchange(affinities)
    assert gain == pytest.approx(max(gains.values()))
    assert gains[split, *sorted((kept, freed))] == pytest.approx(gain)


def test_clusters_that_no_edge_joins_are_not_merged():
    halves = np.kron(np.eye(3), np.ones((2, 2)))
    assert best_exchange(halves).gain == -np.inf


def blobs(sizes, places):
    rows = np.concatenate([RNG.normal(size=(size, 4)) + place for size, place in zip(sizes, places, strict=True)])
    points = rows.astype(np.float32)
    graph, _ = knn_graph(ArrayVectors(points), GraphConfig(n_neighbors=10), AffinityConfig(space="euclidean"))
    neighbors, affinities = graph.block(0, graph.n_rows)
    heads = np.repeat(np.arange(len(points)), neighbors.shape[1])
    edges = SampledEdges(torch.from_numpy(points), heads, neighbors.ravel().astype(np.int64), affinities.ravel())
    return points, edges, np.repeat(np.arange(len(sizes)), sizes)


def cut_of_edges(edges, labels):
    return normalized_cut(labels[edges.heads], labels[edges.tails], edges.affinities, 3)


def exchanges(points, edges, labels):
    clusters = Clusters(means_of_groups(points, labels), labels, np.zeros(len(labels), bool), 1)
    return exchanged(points, clusters, edges, points, 0)


@pytest.fixture(scope="module")
def uneven():
    """Rows of a large blob and two small ones, their edges, their blobs, and a wrong split of the large one."""
    points, edges, blob = blobs((600, 60, 60), ([0, 0, 0, 0], [9, 0, 0, 0], [9, 6, 0, 0]))
    wrong = np.where(blob == 0, (points[:, 1] > 0).astype(int), 2)
    return points, edges, blob, wrong


def test_a_split_cluster_is_merged_and_two_merged_ones_are_split(uneven):
    points, edges, blob, wrong = uneven
    labels, n_exchanges = exchanges(points, edges, wrong)
    assert n_exchanges == 1
    assert adjusted_rand_score(labels, blob) == 1 > adjusted_rand_score(wrong, blob)
    assert sorted(np.unique(labels)) == [0, 1, 2]


def test_right_clusters_stay(uneven):
    points, edges, blob, _ = uneven
    labels, n_exchanges = exchanges(points, edges, blob)
    assert n_exchanges == 0
    np.testing.assert_array_equal(labels, blob)


def test_a_speck_is_not_worth_the_merger_of_two_classes():
    points, edges, blob = blobs((300, 300, 300, 20), ([0, 0, 0, 0], [4, 0, 0, 0], [2, 9, 0, 0], [2, 25, 0, 0]))
    labels = np.where(blob == 3, 2, blob)
    assert 0.02 < cut_of_edges(edges, labels) - cut_of_edges(edges, np.array([0, 0, 1, 2])[blob]) < 0.1
    assert exchanges(points, edges, labels)[1] == 0


@pytest.mark.parametrize(("volume", "split"), [(4.0, 2), (2.0, 0)], ids=["small", "fragment"])
def test_a_fragment_is_owed_no_cluster(volume, split):
    affinities = np.kron(np.eye(4), np.full((2, 2), 25.0))
    affinities[4:6, 4:6] = np.diag([100, volume])
    affinities[2, 6] = affinities[6, 2] = 5
    assert best_exchange(affinities).split == split


def test_few_rows_a_cluster_tell_nothing(uneven):
    points, edges, _, wrong = uneven
    few = np.isin(edges.heads, np.random.default_rng(0).choice(720, 59, replace=False))
    sampled = SampledEdges(edges.embedding, edges.heads[few], edges.tails[few], edges.affinities[few])
    assert exchanges(points, sampled, wrong)[1] == 0


def test_seeds_decide_alike(uneven):
    points, edges, _, wrong = uneven
    np.testing.assert_array_equal(exchanges(points, edges, wrong)[0], exchanges(points, edges, wrong)[0])

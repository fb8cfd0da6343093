from __future__ import annotations

import logging

import numpy as np
import pytest

from distspectral.errors import ConfigError, ConstantDataError, TooFewRowsError
from distspectral.graph.config import AffinityConfig, GraphConfig
from distspectral.graph.knn import knn_graph
from distspectral.storage.rows.vectors import ArrayVectors
from tests.datasets import blobs

SMALL = GraphConfig(n_neighbors=5)
AFFINITY = AffinityConfig(scale_neighbor=3)


def test_self_tuning_graph_is_symmetric_where_both_ends_are_neighbours():
    graph, facts = knn_graph(ArrayVectors(blobs(300, 4, 1)[0]), SMALL, AFFINITY)
    dense = np.zeros((300, 300), np.float32)
    ids, weights = graph.block(0, 300)
    np.put_along_axis(dense, ids, weights, axis=1)
    mutual = (dense > 0) & (dense.T > 0)
    np.testing.assert_array_equal(dense[mutual], dense.T[mutual])
    assert facts["k"] == 5
    assert np.isclose(facts["total_affinity"], weights.sum(dtype=np.float64))


@pytest.mark.parametrize("kind", ["self_tuning", "fuzzy", "gaussian", "uniform", "shared_neighbors"])
def test_block_size_does_not_change_the_graph(kind):
    vectors = ArrayVectors(blobs(200, 4)[0])
    config = AffinityConfig(kind=kind, scale_neighbor=3)
    one, facts = knn_graph(vectors, SMALL, config)
    other, same_facts = knn_graph(vectors, GraphConfig(n_neighbors=5, block_rows=17), config)
    for a, b in zip(one.block(0, 200), other.block(0, 200), strict=True):
        np.testing.assert_array_equal(a, b)
    assert facts == same_facts
    assert (one.block(0, 200)[1] > 0).all()


def test_separate_clusters_are_counted_and_told_of_without_a_warning(caplog):
    rows = np.concatenate([blobs(40, 3, 1)[0], blobs(60, 3, 1)[0] + 1000])
    with caplog.at_level(logging.INFO):
        _, facts = knn_graph(ArrayVectors(rows), SMALL, AFFINITY)
    assert (facts["components"], facts["largest_component_share"]) == (2, 0.6)
    (told,) = (record for record in caplog.records if "2 connected components" in record.getMessage())
    assert told.levelno == logging.INFO, "whether it matters shows in the clusters"


def test_too_few_rows_are_refused_with_both_numbers():
    with pytest.raises(TooFewRowsError, match=r"has 5 rows.*at least 6.*graph.n_neighbors") as refused:
        knn_graph(ArrayVectors(np.eye(5)), SMALL, AFFINITY)
    assert refused.value.parameters == ("graph.n_neighbors",)


def test_as_many_rows_as_needed_are_enough():
    graph, _ = knn_graph(ArrayVectors(np.eye(6)), SMALL, AFFINITY)
    assert sorted(graph.block(2, 3)[0][0]) == [0, 1, 3, 4, 5]


def test_equal_rows_are_refused():
    with pytest.raises(ConstantDataError, match="all 50 rows are equal"):
        knn_graph(ArrayVectors(np.full((50, 3), 0.1)), SMALL, AFFINITY)


def test_scale_beyond_the_neighbours_is_refused():
    with pytest.raises(ConfigError, match="scale_neighbor"):
        knn_graph(ArrayVectors(np.eye(9)), SMALL, AffinityConfig(scale_neighbor=6))

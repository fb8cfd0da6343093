from __future__ import annotations

import numpy as np
import pytest

from distspectral.graph.store import ArrayGraph
from distspectral.graph.weights import SMALLEST, median_squared_distance, reweighted_rows
from distspectral.storage.rows.vectors import ArrayVectors


@pytest.mark.filterwarnings("error")
def test_where_most_edges_join_equal_rows_the_others_weigh_least_and_numpy_warns_of_nothing():
    features = ArrayVectors(np.array([[0], [0], [0], [5]], np.float32))
    neighbors = np.array([[1, 2], [0, 2], [0, 1], [0, 3]])
    graph = ArrayGraph(neighbors, np.array([[1, 1], [1, 1], [1, 1], [1, 0]], np.float16))
    median = median_squared_distance(graph, features)
    assert median == 0
    found, weights = reweighted_rows(graph, features, 0, 4, median)
    np.testing.assert_array_equal(found, neighbors)
    np.testing.assert_array_equal(weights, np.array([[1, 1], [1, 1], [1, 1], [SMALLEST, 0]], np.float16))

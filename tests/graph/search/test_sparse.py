from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from distspectral.graph.config import GraphConfig, Metric
from distspectral.graph.distances import under_metric
from distspectral.graph.search.exact import exact_solver
from distspectral.graph.search.sparse import sparse_neighbors
from distspectral.storage.rows.sparse import SparseVectors
from distspectral.storage.rows.vectors import ArrayVectors

RNG = np.random.default_rng(0)
COUNTS = sparse.random(150, 40, density=0.1, random_state=0, data_rvs=lambda n: RNG.integers(1, 4, n)).toarray()
SETS = {
    "reals": sparse.random(150, 60, density=0.1, random_state=1).toarray(),
    "counts, many ties": COUNTS,
    "copies": np.repeat(COUNTS[:5], 30, axis=0)[RNG.permutation(150)],
    "one of four": np.eye(4)[RNG.integers(4, size=150)],
    "empty rows": COUNTS * (RNG.random((150, 1)) < 0.5),
}


@pytest.mark.parametrize("metric", ["cosine", "centered_cosine", "inner_product"])
@pytest.mark.parametrize("name", SETS)
def test_distances_under_a_metric_are_those_of_the_dense_search(name: str, metric: Metric) -> None:
    dense = under_metric(ArrayVectors(SETS[name]), metric)
    expected = exact_solver(dense, GraphConfig(n_neighbors=6))(dense, 0, 150)
    rows = SparseVectors(sparse.csr_matrix(SETS[name]))
    neighbors, distances = sparse_neighbors(rows, 6, metric, 8 * 150 * 7)
    np.testing.assert_allclose(distances, expected[1], rtol=1e-5, atol=2e-6)  # of rows rounded to float32
    equal = (SETS[name][:, None] == SETS[name][neighbors]).all(2)
    if metric != "inner_product":
        np.testing.assert_array_equal(distances[equal], 0)


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("block_bytes", [1 << 26, 8 * 150 * 7])
def test_neighbours_are_those_of_the_dense_search(name: str, block_bytes: int) -> None:
    dense = ArrayVectors(SETS[name])
    expected = exact_solver(dense, GraphConfig(n_neighbors=6))(dense, 0, 150)
    neighbors, distances = sparse_neighbors(SparseVectors(sparse.csr_matrix(SETS[name])), 6, "l2", block_bytes)
    np.testing.assert_allclose(distances, expected[1], rtol=1e-6, atol=0)
    np.testing.assert_array_equal(distances == 0, expected[1] == 0)
    np.testing.assert_array_equal(neighbors, expected[0])


def test_more_neighbours_than_rows_leave_slots_empty() -> None:
    neighbors, distances = sparse_neighbors(SparseVectors(sparse.csr_matrix(np.eye(3))), 4)
    np.testing.assert_array_equal(neighbors, [[1, 2, 0, 0], [0, 2, 1, 1], [0, 1, 2, 2]])
    np.testing.assert_allclose(distances[:, :2], 2)
    assert np.isinf(distances[:, 2:]).all()

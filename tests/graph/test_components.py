from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
from scipy.sparse import csgraph

from distspectral.graph.components import component_labels
from distspectral.graph.store import ArrayGraph


def random_graph(n_rows, k, span, seed):
    """Neighbours nearby, so that there are many components; some edges are of affinity 0."""
    rng = np.random.default_rng(seed)
    neighbors = np.clip(np.arange(n_rows)[:, None] + rng.integers(-span, span + 1, (n_rows, k)), 0, n_rows - 1)
    return neighbors[rng.permutation(n_rows)] if span == 0 else neighbors, rng.random((n_rows, k)) * (
        rng.random((n_rows, k)) < 0.6
    )


@pytest.mark.parametrize("block_rows", [1, 7, 100, None])
@pytest.mark.parametrize("seed", range(3))
def test_equals_scipy_on_the_whole_matrix(block_rows, seed):
    neighbors, affinities = random_graph(400, 2, 2, seed)
    shuffle = np.random.default_rng(seed).permutation(400)  # row order must not matter
    neighbors, affinities = shuffle[neighbors][np.argsort(shuffle)], affinities[np.argsort(shuffle)]
    matrix = scipy.sparse.coo_array((affinities.ravel(), (np.repeat(np.arange(400), 2), neighbors.ravel())))
    matrix.eliminate_zeros()
    n_expected, expected = csgraph.connected_components(matrix, directed=False)
    labels = component_labels(ArrayGraph(neighbors, affinities), block_rows)
    assert len(np.unique(labels)) == n_expected > 10
    assert len(np.unique(np.stack([labels, expected]), axis=1).T) == n_expected


def test_component_is_named_by_its_smallest_row():
    graph = ArrayGraph(np.array([[4], [3], [2], [1], [2]]), np.ones((5, 1)))
    assert component_labels(graph, 2).tolist() == [0, 1, 0, 1, 0]


def test_path_in_reverse_order_is_one_component():
    neighbors = np.maximum(np.arange(1000)[:, None] - 1, 0)
    assert (component_labels(ArrayGraph(neighbors, np.ones((1000, 1))), 10) == 0).all()

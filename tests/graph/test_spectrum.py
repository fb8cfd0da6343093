from __future__ import annotations

import numpy as np
import pytest

from distspectral.graph import spectrum
from distspectral.graph.spectrum import exact_spectrum
from distspectral.graph.store import ArrayGraph
from tests.oracles import dense_spectrum, random_graph


def beside_each_other(*graphs):
    """One graph of separate parts, missing slots padded."""
    width = max(graph.n_neighbors for graph in graphs)
    starts = np.cumsum([0, *(graph.n_rows for graph in graphs)])
    neighbors = np.repeat(np.arange(starts[-1])[:, None], width, axis=1)
    affinities = np.zeros(neighbors.shape, np.float32)
    for start, graph in zip(starts, graphs, strict=False):
        found, weights = graph.block(0, graph.n_rows)
        part = np.s_[start : start + graph.n_rows, : graph.n_neighbors]
        neighbors[part], affinities[part] = found + start, weights
    return ArrayGraph(neighbors, affinities)


def ring(n_rows):
    """A cycle: every eigenvalue but the ends occurs twice."""
    rows = np.arange(n_rows)
    return ArrayGraph(np.stack([rows - 1, rows + 1], axis=1) % n_rows, np.ones((n_rows, 2), np.float32))


GRAPHS = {
    "three components": beside_each_other(*(random_graph(480, 8, seed) for seed in range(3))),
    "uneven components": beside_each_other(random_graph(900, 8), random_graph(40, 8, 1), random_graph(9, 3, 2)),
    "three times the same": beside_each_other(*(random_graph(300, 8) for _ in range(3))),
    "a ring": ring(400),
    "five rings": beside_each_other(*(ring(120) for _ in range(5))),
    "few rows": beside_each_other(random_graph(12, 3), random_graph(9, 3, 1)),
    "one component": random_graph(1000, 8),
}


@pytest.mark.parametrize("n_functions", [3, 10, 14])
@pytest.mark.parametrize("name", GRAPHS)
def test_every_copy_of_an_eigenvalue_is_found(name, n_functions):
    graph = GRAPHS[name]
    values, vectors, degree = exact_spectrum(graph, n_functions)
    dense = dense_spectrum(graph)
    np.testing.assert_allclose(values, dense.values[:n_functions], atol=1e-8)
    mass = (degree / degree.sum())[:, None]
    np.testing.assert_allclose(vectors.T @ (vectors * mass), np.eye(n_functions), atol=1e-6)
    whole = dense.vectors[:, dense.values < dense.values[n_functions - 1] + 1e-7]  # with all copies of the last
    inside = whole @ (whole.T @ (vectors * mass))
    np.testing.assert_allclose(inside, vectors, atol=1e-4)


def test_a_row_without_edges_has_no_mass_and_disturbs_nothing():
    graph = beside_each_other(random_graph(200, 6), ArrayGraph(np.zeros((1, 6), np.int64), np.zeros((1, 6))))
    values, vectors, degree = exact_spectrum(graph, 5)
    assert degree[-1] == 0
    np.testing.assert_array_equal(vectors[-1], 0)
    np.testing.assert_allclose(values, dense_spectrum(random_graph(200, 6)).values[:5], atol=1e-8)


def test_where_one_basis_does_not_converge_a_wider_one_does(monkeypatch):
    """Thirty groups that all but nothing joins: thirty eigenvalues as good as equal."""
    joined, widths = beside_each_other(*(random_graph(40, 6, seed) for seed in range(30))), []
    neighbors, affinities = joined.block(0, joined.n_rows)
    neighbors[::40, 0] = (np.arange(0, joined.n_rows, 40) + 40) % joined.n_rows
    affinities[::40, 0] = 1e-9
    arpack = spectrum.scipy.sparse.linalg.eigsh

    def noted(*arguments, **asked):
        widths.append(asked["ncv"])
        return arpack(*arguments, **asked)

    monkeypatch.setattr(spectrum.scipy.sparse.linalg, "eigsh", noted)
    monkeypatch.setattr(spectrum, "MOST_RESTARTS", 2)
    values, _, _ = exact_spectrum(ArrayGraph(neighbors, affinities), 5)
    np.testing.assert_allclose(values, dense_spectrum(ArrayGraph(neighbors, affinities)).values[:5], atol=1e-8)
    assert max(widths) > min(widths)

"""The estimator learns on a graph that it is given."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse
from sklearn.metrics import adjusted_rand_score
from sklearn.neighbors import kneighbors_graph

from distspectral import SpectralNet
from distspectral.errors import ConfigError, SourceError
from distspectral.estimators.given import given_lists, on_given
from tests.datasets import blobs

SMALL = {"n_clusters": 3, "hidden": (16,), "batch_size": 128, "max_steps": 60, "random_state": 0, "n_neighbors": 8}
ROWS, LABELS = blobs(150, 5)
DISTANCES = kneighbors_graph(ROWS, 8, mode="distance")
AFFINITIES = DISTANCES.copy()
AFFINITIES.data = 5 * np.exp(-(DISTANCES.data**2))
AFFINITIES = AFFINITIES + AFFINITIES.T


def test_distances_of_a_search_give_what_the_search_does() -> None:
    plain = {"representation": "input", "affinity_space": "euclidean"}
    searched = SpectralNet(**SMALL | plain).fit(ROWS)
    given = SpectralNet(**SMALL).fit(ROWS, graph=DISTANCES)
    np.testing.assert_allclose(given.eigenvalues_, searched.eigenvalues_, atol=2e-3)
    np.testing.assert_array_equal(given.predict(ROWS[:9]), given.labels_[:9])


def test_affinities_are_learned_on_whatever_the_rows_say() -> None:
    """The graph has its own blocks, which rows that say nothing of them are told apart by."""
    blocks = np.arange(150) % 2
    joined = sparse.csr_matrix((blocks[:, None] == blocks) & ~np.eye(150, dtype=bool), dtype=float)
    rows = np.column_stack([np.random.default_rng(0).standard_normal((150, 4)), blocks])
    model = SpectralNet(**SMALL | {"n_clusters": 2, "affinity": "precomputed"}).fit(rows, graph=joined)
    assert (model.graph_["components"], model.graph_["k"]) == (2, 74)
    assert adjusted_rand_score(blocks, model.labels_) == 1


@pytest.mark.parametrize("form", ["csr_matrix", "csc_array", "ndarray"])
def test_any_form_of_matrix_will_do(form: str) -> None:
    graph = AFFINITIES.toarray() if form == "ndarray" else getattr(sparse, form)(AFFINITIES)
    model = SpectralNet(**SMALL | {"affinity": "precomputed", "max_steps": 5}).fit(ROWS, graph=graph)
    assert model.graph_["k"] == np.diff(AFFINITIES.tocsr().indptr).max()


def test_what_a_polish_takes_is_reckoned_with_the_neighbours_that_the_graph_has() -> None:
    lists = given_lists(AFFINITIES, 150, "precomputed")
    recipe = on_given(SpectralNet(**SMALL).recipe(ROWS.shape[1], 150), lists)
    assert recipe.graph.n_neighbors == np.diff(AFFINITIES.tocsr().indptr).max() > 8


def with_(row: int, column: int, value: float) -> sparse.csr_matrix:
    found = AFFINITIES.tolil()
    found[row, column] = value
    return found.tocsr()


@pytest.mark.parametrize(
    ("graph", "error", "message"),
    [
        (AFFINITIES[:99, :99], ConfigError, r"graph: has the shape \(99, 99\), but X has 150 rows"),
        ("a.npz", ConfigError, r"graph: expected a SciPy sparse matrix \(got str\)"),
        (sparse.eye(150), ConfigError, r"graph: has rows of up to 0 entries, expected 1 to 1,024"),
        (with_(7, 9, -1), SourceError, r"graph: row 7, neighbour \d: -1\.0 is none of the affinities"),
        (with_(7, 9, np.inf), SourceError, r"graph: row 7, neighbour \d: inf is none of the affinities; give finite"),
        (sparse.csr_matrix(([1.0], ([3], [4])), (150, 150)), SourceError, r"graph: row 0 has no neighbour but itself"),
        (None, ConfigError, r"affinity: is precomputed, but .* no graph whose affinities.*fit\(X, graph=A\)"),
    ],
)
def test_what_is_no_graph_is_refused(graph: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        SpectralNet(**SMALL | {"affinity": "precomputed"}).fit(ROWS, graph=graph)


def test_a_graph_in_place_of_features_is_refused_with_the_line_that_takes_both() -> None:
    graph = sparse.csr_matrix(AFFINITIES)
    with pytest.raises(ConfigError, match=r"where features are expected.*graph=adata\.obsp\['connectivities'\]\)"):
        SpectralNet(affinity="precomputed").fit(graph)


def test_what_is_infinitely_far_is_no_neighbor() -> None:
    poisoned = AFFINITIES.tocsr().copy().astype(np.float64)
    poisoned.data[0] = np.inf
    found, whole = (given_lists(one, 150, "self_tuning") for one in (poisoned, AFFINITIES))
    assert found is not None
    assert whole is not None
    np.testing.assert_array_equal(found[0][1:], whole[0][1:])
    assert np.isfinite(found[1][0]).sum() == np.isfinite(whole[1][0]).sum() - 1

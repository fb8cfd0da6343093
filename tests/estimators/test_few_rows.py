"""Few rows, or many of which few differ: as many clusters as asked for, or a word about those that were found."""

from __future__ import annotations

import tracemalloc
import warnings
from typing import Any

import numpy as np
import pytest
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score

from distspectral import SpectralNet

FAST: dict[str, Any] = {
    "representation": "input",
    "affinity_space": "euclidean",
    "hidden": (64, 32),
    "batch_size": 256,
    "max_steps": 100,
    "random_state": 0,
}
RNG = np.random.default_rng(0)
LEVELS = RNG.integers(4, size=200)
TWO = np.repeat([[0.0, 0.0], [5.0, 5.0]], 50, axis=0)
BINARY = RNG.integers(2, size=(200, 3)).astype(float)
GROUPS = RNG.normal(0, 0.1, (16, 2)) + np.repeat([[0, 0], [50, 50]], 8, axis=0)


def distinct(X: np.ndarray) -> np.ndarray:
    return np.unique(X, axis=0, return_inverse=True)[1].reshape(-1)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "rows",
    [[0, 10, 20], [0, 1, 20], [-5, 0, 1000], [0, 1, 20, 21], [0, 1, 4, 9, 16], list(range(8))],
    ids=str,
)
def test_as_many_clusters_as_rows_are_the_rows(rows: list[float], seed: int) -> None:
    model = SpectralNet(len(rows), **FAST | {"random_state": seed}).fit(np.array(rows, float)[:, None])
    assert len(set(model.labels_)) == model.n_clusters_ == len(rows)


@pytest.mark.parametrize("affinity", ["self_tuning", "fuzzy", "gaussian", "uniform", "shared_neighbors"])
def test_two_small_groups_are_two_clusters_by_every_affinity(affinity: str) -> None:
    model = SpectralNet(2, affinity=affinity, **FAST).fit(GROUPS)
    assert adjusted_rand_score(np.repeat([0, 1], 8), model.labels_) == 1


SETS = {"two points": TWO, "one of four": np.eye(4)[LEVELS], "three bits": BINARY}


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize(("affinity_space", "auto"), [("euclidean", False), ("euclidean", True), ("siamese", False)])
def test_rows_of_which_few_differ_are_clustered(name: str, affinity_space: str, auto: bool) -> None:
    X = SETS[name]
    n_clusters = "auto" if auto else len(set(distinct(X)))
    model = SpectralNet(n_clusters, **FAST | {"affinity_space": affinity_space}).fit(X)
    assert adjusted_rand_score(distinct(X), model.labels_) == 1
    assert model.n_clusters_ == len(set(distinct(X)))
    np.testing.assert_array_equal(model.predict(X), model.labels_)


def test_fewer_clusters_than_different_rows_keep_equal_rows_together() -> None:
    model = SpectralNet(2, **FAST).fit(BINARY)
    assert len(set(model.labels_)) == 2
    assert all(len(set(model.labels_[distinct(BINARY) == one])) == 1 for one in range(8))


@pytest.mark.parametrize("change", [{}, {"n_components": 1}])
def test_fewer_clusters_than_asked_for_are_told(change: dict[str, Any]) -> None:
    found = 1 if change else 2
    with pytest.warns(
        ConvergenceWarning, match=f"3 clusters were asked for and {found} were found. 2 of 100 rows"
    ) as told:
        model = SpectralNet(3, **FAST | change).fit(TWO)
    assert told[0].filename == __file__, "the caller's line is shown"
    assert model.n_clusters_ == len(model.cluster_centers_) == len(set(model.labels_)) == found
    assert sorted(set(model.labels_)) == list(range(found))
    np.testing.assert_array_equal(model.predict(TWO), model.labels_)


def test_one_cluster_that_was_asked_for_is_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert SpectralNet(1, n_components=1, **FAST).fit(GROUPS).n_clusters_ == 1


def test_a_network_narrower_than_the_functions_asked_for_by_default_keeps_what_it_carries() -> None:
    X = RNG.normal(size=(300, 4))
    model = SpectralNet("auto", **FAST | {"hidden": (8,), "max_steps": 20}).fit(X)
    assert 2 <= len(model.eigenvalues_) <= 9


# ---- sparse rows -------------------------------------------------------------------------------------------------


def test_wide_sparse_rows_are_never_made_dense() -> None:
    n_rows, dim = 100, 100_000
    columns = np.sort(RNG.integers(0, 20, (n_rows, 12)) + 1000 * (np.arange(n_rows) % 2)[:, None], axis=1)
    X = sparse.csr_matrix((np.ones(columns.size), columns.ravel(), np.arange(0, columns.size + 1, 12)), (n_rows, dim))
    model = SpectralNet(2, **FAST | {"representation": "auto", "hidden": (4,), "max_steps": 5})
    tracemalloc.start()
    model.fit(X).predict(X)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * n_rows * dim / 2, "NumPy held half of the rows at least"
    assert model.model_.network.dim == dim

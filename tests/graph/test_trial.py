"""What neighbours are searched in where the config leaves it open, and by which distance."""

from __future__ import annotations

import dataclasses
import logging

import numpy as np
import pytest
from scipy import sparse

from distspectral import SpectralNet
from distspectral.datasets import two_moons
from distspectral.graph import trial as module
from distspectral.graph.config import GraphConfig
from distspectral.graph.trial import TRIAL_ROWS, Trial, Way, tried, ways
from distspectral.storage.rows.sparse import SparseVectors
from distspectral.storage.rows.vectors import ArrayVectors
from tests.datasets import blobs, drowned

AUTO = GraphConfig(n_neighbors=8, metric="auto")
BOTH = ("rows", "components")


def counts(n_rows: int = 600, dim: int = 300, rate: float = 0.05) -> np.ndarray:
    """Return counts (N, D) of four kinds of rows, whose depth varies: the shallow ones are near to all."""
    rng = np.random.default_rng(0)
    kinds = rate * np.exp(rng.normal(0, 1, (4, dim)))
    depth = np.exp(rng.normal(0, 0.7, (n_rows, 1)))
    return rng.poisson(kinds[rng.integers(0, 4, n_rows)] * depth).astype(np.float32)


RIDDEN, DROWNED = counts(), drowned(800, 600)


def test_rows_that_hubs_rule_are_compared_by_centred_cosine(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, module.__name__)
    found = tried(ArrayVectors(RIDDEN), ("rows",), AUTO, 50)
    assert (found.space, found.metric, found.n_rows) == ("rows", "centered_cosine", 600)
    assert found.predicted["rows, centered_cosine"] > 1.1 * found.predicted["rows, l2"]
    assert found.in_words in caplog.text
    assert found.in_words.startswith("Neighbours by centred cosine of rows: found in half of the features of 600 rows")
    assert f"{found.predicted['rows, l2']:.1%} by Euclidean of rows" in found.in_words


def test_rows_that_noise_drowns_are_searched_among_components() -> None:
    found = tried(ArrayVectors(DROWNED), BOTH, AUTO.model_copy(update={"metric": "l2"}), 50)
    assert (found.space, found.metric) == ("components", "l2")
    assert set(found.predicted) == {"rows, l2", "components, l2"}
    assert "Euclidean among principal components" in found.in_words


def test_rows_that_are_fine_are_left_as_they_are() -> None:
    found = tried(ArrayVectors(blobs(600, 120)[0]), BOTH, AUTO, 50)
    assert (found.space, found.metric) == ("rows", "l2")
    assert len(found.predicted) == 4


@pytest.mark.parametrize(
    ("values", "way"),
    [
        ((0.5, 0.54, 0.55, 0.55), "rows, l2"),
        ((0.5, 0.56, 0.5, 0.6), "rows, centered_cosine"),
        ((0.5, 0.5, 0.56, 0.6), "components, l2"),
        ((-0.2, -0.3, 0.01, 0.5), "components, centered_cosine"),
        ((-0.2, -0.3, -0.1, -0.4), "rows, l2"),
    ],
)
def test_the_simplest_is_taken_that_no_other_clearly_beats(monkeypatch, values, way: str) -> None:
    found = {one.name: value for one, value in zip(ways(BOTH, "auto"), values, strict=True)}
    monkeypatch.setattr(module, "_predicted", lambda *_: found)
    decided = tried(ArrayVectors(RIDDEN), BOTH, AUTO, 50)
    assert Way(decided.space, decided.metric).name == way


def test_neighbours_of_one_kind_predict_all_and_any_neighbours_nothing() -> None:
    kinds = np.repeat([[1.0, 2.0], [-1.0, -2.0]], 3, axis=0).astype(np.float32)
    alike = np.array([[1, 2], [0, 2], [0, 1], [4, 5], [3, 5], [3, 4]])
    assert module._r_squared(alike, kinds) == pytest.approx(1)
    assert module._r_squared((alike + 3) % 6, kinds) == pytest.approx(-3)
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((5000, 3)).astype(np.float32)
    assert abs(module._r_squared(rng.integers(0, 5000, (5000, 4)), noise)) < 0.03
    noisy = noise + np.repeat([[2.0], [-2.0]], 2500, axis=0).astype(np.float32)  # of its variance 12 of 15 parts
    same_half = np.concatenate([rng.integers(0, 2500, (2500, 4)), rng.integers(2500, 5000, (2500, 4))])
    assert module._r_squared(same_half, noisy) == pytest.approx(12 / 15, abs=0.03)


def test_halves_of_rows_of_length_one_are_of_length_one_too() -> None:
    rows = RIDDEN / np.linalg.norm(RIDDEN, axis=1, keepdims=True)
    by_length = tried(ArrayVectors(rows), ("rows",), AUTO, 50).predicted
    longer = tried(ArrayVectors(2 * rows), ("rows",), AUTO, 50).predicted
    assert by_length["rows, l2"] > longer["rows, l2"]


@pytest.mark.parametrize("rows", [two_moons(2000)[0], RIDDEN[:, :9], RIDDEN[:199], np.repeat(RIDDEN[:150], 10, axis=0)])
def test_narrow_and_few_different_rows_are_not_tried(rows: np.ndarray) -> None:
    found = tried(ArrayVectors(rows), BOTH, AUTO, 50)
    assert found == Trial("rows", "l2", 0, {})
    assert found.in_words == "Neighbours by Euclidean of rows: there was nothing to try"


def test_copies_of_rows_are_left_out() -> None:
    rows = np.concatenate([RIDDEN, np.tile(RIDDEN[:4], (300, 1))])
    assert tried(ArrayVectors(rows), ("rows",), AUTO, 50).n_rows == 600


def test_sparse_rows_are_tried_like_dense_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    thin = SparseVectors(sparse.csr_matrix(np.hstack([RIDDEN, np.zeros((600, 900))])))
    assert thin.is_thin
    expected = tried(ArrayVectors(RIDDEN), BOTH, AUTO, 50)
    monkeypatch.setattr(SparseVectors, "gather", None)
    assert tried(thin, BOTH, AUTO, 50) == expected


def test_of_very_wide_rows_features_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_FEATURES", 100)
    seen = []
    monkeypatch.setattr(module, "_r_squared", lambda neighbors, targets: seen.append(targets.shape[1]) or 0.5)
    for rows in (ArrayVectors(RIDDEN), SparseVectors(sparse.csr_matrix(np.hstack([RIDDEN, np.zeros((600, 900))])))):
        tried(rows, ("rows",), AUTO, 50)
    assert set(seen) == {50}


def test_a_sample_of_what_memory_holds_decides() -> None:
    rows = np.random.default_rng(0).standard_normal((TRIAL_ROWS + 500, 10))
    few = AUTO.model_copy(update={"task_memory": 16 * 10 * 400})
    assert tried(ArrayVectors(rows), ("rows",), AUTO, 50).n_rows == TRIAL_ROWS
    assert tried(ArrayVectors(rows), ("rows",), few, 50).n_rows == 400


def test_what_is_not_open_is_not_tried() -> None:
    config = AUTO.model_copy(update={"metric": "inner_product"})
    assert tried(ArrayVectors(RIDDEN), ("rows",), config, 50) == Trial("rows", "inner_product", 0, {})


def test_an_estimator_tells_its_trial_and_goes_on_in_its_space() -> None:
    brief = {"affinity_space": "euclidean", "metric": "l2", "hidden": 8, "max_steps": 5, "random_state": 0}
    model = SpectralNet(n_clusters=5, n_neighbors=8, **brief).fit(DROWNED)
    assert model.graph_["trial"]["space"] == "components"
    found = Trial.of(model.graph_["trial"])
    assert model.graph_["metric"] == found.metric
    assert "pca" in model._weights
    again = model.partial_refit(blobs(600, DROWNED.shape[1])[0])  # which would be searched as they are
    assert again.graph_["trial"] == dataclasses.asdict(found)


def test_one_neighbour_is_tried_as_two() -> None:
    one, two = (tried(ArrayVectors(DROWNED), BOTH, GraphConfig(n_neighbors=k, metric="l2"), 50) for k in (1, 2))
    assert one == two
    assert all(np.isfinite(share) for share in one.predicted.values())

"""A fit on more rows goes on from the weights of the one before; whoever listens hears of every window."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn import config_context
from sklearn.base import clone
from sklearn.datasets import make_blobs
from sklearn.metrics import adjusted_rand_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from distspectral import DSCL, SpectralNet
from distspectral.errors import ConfigError
from tests.estimators.brief import METRIC, SPECTRAL, X, Y

ROWS, KINDS = make_blobs(900, n_features=5, centers=3, cluster_std=0.8, random_state=1)
PLAIN: dict[str, Any] = {"representation": "input", "affinity_space": "euclidean", "random_state": 0}
BRIEF: dict[str, Any] = PLAIN | {"n_neighbors": 30, "hidden": (32,), "batch_size": 256, "max_steps": 100}


@pytest.fixture(scope="module")
def first() -> SpectralNet:
    return SpectralNet(3, **BRIEF).fit(ROWS[:600])


def test_a_refit_begins_with_the_weights_learned(first: SpectralNet) -> None:
    losses: list[float] = []

    def hear(window: dict[str, Any]) -> None:
        losses.extend([window["loss"]] * (window["training"] == "train"))

    short = {"max_steps": 2}
    cold = clone(first).set_params(**short).fit(ROWS, on_window=hear)
    warm = clone(first).fit(ROWS[:600]).set_params(**short)
    warm.partial_refit(ROWS, on_window=hear)
    assert losses[1] < losses[0] / 2, "the first steps are those of a trained network"
    assert len(warm.labels_) == len(cold.labels_) == 900


def test_clusters_that_hold_the_same_rows_keep_their_numbers(first: SpectralNet) -> None:
    turned = clone(first).fit(ROWS[:600])
    order = np.array([2, 0, 1])
    turned._renumber(order[turned.labels_].astype(np.int32))
    np.testing.assert_array_equal(turned.labels_, order[first.labels_])
    expected = turned.predict(ROWS)
    turned.partial_refit(ROWS)
    assert adjusted_rand_score(KINDS, turned.labels_) > 0.99
    np.testing.assert_array_equal(turned.labels_, expected)
    np.testing.assert_array_equal(turned.predict(ROWS), turned.labels_)
    np.testing.assert_array_equal(turned.cut(3), turned.labels_)


def test_a_saved_estimator_is_refitted_as_one_that_was_kept(first: SpectralNet, tmp_path: Any) -> None:
    first.save(tmp_path / "model.pt")
    loaded = SpectralNet.load(tmp_path / "model.pt").partial_refit(ROWS)
    kept = clone(first).fit(ROWS[:600]).partial_refit(ROWS)
    np.testing.assert_array_equal(loaded.embedding_, kept.embedding_)


@pytest.mark.parametrize("representation", ["code", "pca"])
def test_encoders_are_taken_along(representation: str) -> None:
    asked = BRIEF | {"representation": representation, "affinity_space": "siamese", "max_steps": 20}
    model = SpectralNet(3, **asked).fit(ROWS[:300])
    model.partial_refit(ROWS)
    windows: list[dict[str, Any]] = []
    model.partial_refit(ROWS, on_window=windows.append)
    trained = ["distill", "siamese", "train"]
    trained = trained if representation == "pca" else ["autoencoder", *trained]
    assert sorted({window["training"] for window in windows}) == trained
    assert {"training", "step", "loss"} <= set(windows[0])
    np.testing.assert_array_equal(model.predict(ROWS), model.labels_)


def test_weights_that_do_not_fit_are_refused_and_nothing_is_lost(first: SpectralNet) -> None:
    model = clone(first).fit(ROWS[:600])
    before = model.transform(ROWS)
    model.set_params(hidden=(16,))
    with pytest.raises(ConfigError, match=r"partial_refit: the weights .*\(.*weight is \(16, .* was \(32, "):
        model.partial_refit(ROWS + 1e6)  # in another frame, too
    np.testing.assert_array_equal(model.transform(ROWS), before)
    model.set_params(hidden=(32,), affinity_space="siamese")
    with pytest.raises(ConfigError, match="partial_refit: nothing was learned before at the stage siamese; keep the"):
        model.partial_refit(ROWS)
    with pytest.raises(ValueError, match="4 features"):
        model.partial_refit(ROWS[:, :4])


def test_the_constant_function_is_given_where_it_is_asked_for() -> None:
    whole = SpectralNet(**SPECTRAL, include_constant=True).fit(X)
    short = SpectralNet(**SPECTRAL).fit(X)
    np.testing.assert_array_equal(whole.embedding_, short.embedding_)
    np.testing.assert_array_equal(whole.transform(X), whole.embedding_)
    np.testing.assert_array_equal(short.transform(X), whole.embedding_[:, 1:])
    np.testing.assert_array_equal(short.fit_transform(X), short.transform(X))
    assert len(whole.get_feature_names_out()) == len(short.get_feature_names_out()) + 1 == len(whole.eigenvalues_)
    with pytest.raises(ConfigError, match="include_constant: expected"):
        SpectralNet(**SPECTRAL, include_constant="no").fit(X)


def test_listeners_are_routed_and_weights_of_rows_are_refused_by_name() -> None:
    heard: list[dict[str, Any]] = []
    make_pipeline(StandardScaler(), SpectralNet(**SPECTRAL)).fit(X, spectralnet__on_window=heard.append)
    assert heard[-1]["step"] == 2
    with config_context(enable_metadata_routing=True):
        asking = SpectralNet(**SPECTRAL).set_fit_request(on_window=True)
        make_pipeline(StandardScaler(), asking).fit(X, on_window=heard.append)
    DSCL(**METRIC).fit(X, Y, on_window=heard.append)
    assert [window.get("training") for window in heard] == ["train", "distill", "train", "distill", "train"]
    for kind in (SpectralNet, DSCL):
        with pytest.raises(TypeError, match="sample_weight"):
            kind().fit(X, Y, sample_weight=np.ones(60))


@pytest.mark.parametrize("stopped", [KeyboardInterrupt, ZeroDivisionError])
def test_a_fit_that_ends_early_leaves_the_estimator_as_it_was(stopped: type[BaseException]) -> None:
    def stop(window: dict[str, Any]) -> None:
        raise stopped

    other = X[:, :3] * 1e30
    for model, labels in ((SpectralNet(**SPECTRAL).fit(X), None), (DSCL(**METRIC).fit(X, Y), Y + 7)):
        before, frame = model.transform(X), model.frame_
        with pytest.raises(stopped):
            model.fit(other, labels, on_window=stop)
        np.testing.assert_array_equal(model.transform(X), before)
        assert model.frame_ is frame
        assert model.n_features_in_ == X.shape[1]
        if labels is not None:
            np.testing.assert_array_equal(model.classes_, np.unique(Y))

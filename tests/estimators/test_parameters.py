"""Every parameter of the estimators: what is wrong is refused before any work, and what NumPy made is welcome."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from distspectral import DSCL, SpectralNet
from distspectral.errors import ConfigError, TooFewRowsError
from distspectral.estimators.base import NetworkEstimator
from tests.estimators.brief import METRIC, SPECTRAL, X, Y

NAN, INF = float("nan"), float("inf")

COUNT = [2.0, "3", True, None, NAN, 0, -1, (3,), np.float64(3)]
BOTH: dict[str, list[Any]] = {
    "hidden": ["8", None, 8.0, True, (), (0,), (8.0,), (True,), ("8",), {8}, np.array([8.0]), 0],
    "batch_size": COUNT,
    "device": ["gpu", "cuda:0", 0, None, True],
    "random_state": ["a", -1, 2**32, 1.5, True, np.random.default_rng(0), (1,)],
    "verbose": ["yes", None, -1, 1.5],
}
WRONG_SPECTRAL = BOTH | {
    "n_clusters": [*COUNT, "many"],
    "representation": ["codes", None, 1, True],
    "affinity_space": ["cosine", None, 1],
    "n_components": [2.0, "3", True, NAN, 0, -1, (3,), 10],
    "n_neighbors": [*COUNT, 5000],
    "metric": ["euclidean", None, 1, True],
    "connect": ["all", None, 1, True],
    "include_constant": ["no", None, 1],
    "affinity": ["rbf", None, 1],
    "laplacian": ["normalized", None, 1],
    "max_steps": COUNT,
}
WRONG_METRIC = BOTH | {
    "n_components": [2.0, "3", True, NAN, 0, -1, 40],
    "trunk": [3, "x", "no.such:module", ("a", "b"), True],
    "trunk_options": ["x", [1], 3],
    "rows_per_class": [*COUNT, 1],
    "loss": ["triplet", None, 1],
    "max_steps": COUNT,
    "learning_rate": [0, -1.0, NAN, INF, "a", None, True],
}
RIGHT_SPECTRAL: dict[str, list[Any]] = {
    "n_clusters": [np.int64(3), np.array(3), Y[:3].max() + 1, np.str_("auto")],
    "representation": [np.str_("input")],
    "affinity_space": [np.str_("euclidean")],
    "n_components": [np.int32(4), None],
    "n_neighbors": [np.uint8(7)],
    "metric": [np.str_("centered_cosine")],
    "connect": [np.str_("nearest")],
    "affinity": [np.str_("fuzzy")],
    "laplacian": [np.str_("unnormalized")],
    "hidden": [8, np.int64(8), [8], np.array([8, 8]), (np.int64(8), 8)],
    "batch_size": [np.int64(64)],
    "max_steps": [np.int64(2)],
    "device": [np.str_("cpu")],
    "random_state": [None, np.int64(3), np.random.RandomState(0), 2**32 - 1],
    "verbose": [np.bool_(False), 0, np.int64(0)],
    "include_constant": [np.bool_(True), False],
}
RIGHT_METRIC: dict[str, list[Any]] = {
    **{name: RIGHT_SPECTRAL[name] for name in ("hidden", "max_steps", "device", "random_state", "verbose")},
    "n_components": [np.int64(3), None],
    "trunk": [np.str_("distspectral.models.trunks:conv_trunk")],
    "trunk_options": [{}, None, {"image_shape": np.array([1, 2, 2])}],
    "rows_per_class": [np.int64(4)],
    "loss": [np.str_("softmax")],
    "batch_size": [np.int64(40)],
    "learning_rate": [np.float32(0.01), 1, np.int64(1)],
}


def cases(kind: type[NetworkEstimator], values: dict[str, list[Any]]) -> list[Any]:
    return [
        pytest.param(kind, name, value, id=f"{kind.__name__}-{name}-{value!r}"[:60])
        for name, tried in values.items()
        for value in tried
    ]


def made(kind: type[NetworkEstimator], name: str, value: Any) -> NetworkEstimator:
    return kind(**(SPECTRAL if kind is SpectralNet else METRIC) | {name: value})


@pytest.mark.parametrize("kind", [SpectralNet, DSCL])
def test_no_parameter_is_left_out_here(kind: type[NetworkEstimator]) -> None:
    wrong, right = (WRONG_SPECTRAL, RIGHT_SPECTRAL) if kind is SpectralNet else (WRONG_METRIC, RIGHT_METRIC)
    assert wrong.keys() == right.keys() == kind().get_params().keys()


@pytest.mark.parametrize(("kind", "name", "value"), [*cases(SpectralNet, WRONG_SPECTRAL), *cases(DSCL, WRONG_METRIC)])
def test_what_is_wrong_is_told_by_the_parameters_name_before_any_work(
    kind: type[NetworkEstimator], name: str, value: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    model = made(kind, name, value)
    if name != "verbose":
        model.set_params(verbose=True)
    with pytest.raises(ConfigError, match=rf"^{name}: ") as caught:
        model.fit(X, Y)
    assert caught.value.parameters == ()
    assert not any(key in str(caught.value) for key in kind.WORDS if "." in key)
    assert capsys.readouterr().out == "", "nothing was trained"
    assert not hasattr(model, "history_")


@pytest.mark.parametrize(("kind", "name", "value"), [*cases(SpectralNet, RIGHT_SPECTRAL), *cases(DSCL, RIGHT_METRIC)])
def test_what_numpy_made_is_as_good_as_pythons_own(kind: type[NetworkEstimator], name: str, value: Any) -> None:
    model = made(kind, name, value)
    if name == "trunk":
        model.set_params(trunk_options={"image_shape": [1, 2, 2], "channels": [8]})
    assert len(model.fit(X, Y).transform(X)) == len(X)


def test_a_refusal_says_what_was_expected_and_what_was_given() -> None:
    for change, told in {
        "n_clusters": r"^n_clusters: expected a whole number or 'auto' \(got 2\.0\)$",
        "max_steps": r"^max_steps: expected a whole number or 'auto' \(got 2\.0\)$",
    }.items():
        with pytest.raises(ConfigError, match=told):
            made(SpectralNet, change, 2.0).fit(X)


@pytest.mark.parametrize("n_components", [500, 61])
def test_more_functions_than_rows_are_refused_at_once(n_components: int, capsys: pytest.CaptureFixture[str]) -> None:
    model = SpectralNet(3, n_components=n_components, hidden=(512,), verbose=True)
    with pytest.raises(TooFewRowsError, match=rf"^X: holds 60 rows, but {n_components} functions"):
        model.fit(X)
    assert capsys.readouterr().out == ""


def test_more_functions_than_different_rows_are_refused_at_once() -> None:
    with pytest.raises(TooFewRowsError, match=r"^n_components: is 5, but X holds 4 different rows"):
        SpectralNet(3, n_components=5).fit(np.repeat(np.eye(4), 10, axis=0))

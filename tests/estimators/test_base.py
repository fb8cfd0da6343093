"""What the estimators share with runs, by construction, and what errors are told in."""

from __future__ import annotations

import inspect
from typing import Any, Literal

import numpy as np
import pytest
from scipy import sparse

from distspectral import DSCL, SpectralNet
from distspectral.config import parse_config
from distspectral.embedding.encode import refuse_collapse
from distspectral.errors import CollapsedError, ConfigError, ConstantDataError, NonFiniteStepError, TooFewRowsError
from distspectral.estimators.base import NetworkEstimator, told_in
from distspectral.recipes import Recipe

DIM, N_ROWS = 30, 1_000_000
PLAIN = {"representation": "input", "affinity_space": "euclidean", "hidden": (8,), "max_steps": 5}


def of_a_run(*overrides: str) -> Recipe:
    """Return the recipe of a run whose config says nothing that it need not say."""
    return parse_config("name: x\ndata: {path: shards, label_column: label}", "run.yaml", overrides).recipe(DIM)


def differences(one: Recipe, other: Recipe) -> dict[str, tuple[Any, Any]]:
    """Return the settings, by dotted key, in which two recipes differ."""

    def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, value in values.items():
            found |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) and value else {prefix + name: value}
        return found

    ours, theirs = flat(one.model_dump()), flat(other.model_dump())
    assert ours.keys() == theirs.keys()
    return {key: (ours[key], theirs[key]) for key in ours if ours[key] != theirs[key]}


def test_spectral_net_does_what_a_run_does_unless_told_otherwise() -> None:
    run, estimator = of_a_run(), SpectralNet(random_state=0).recipe(DIM, N_ROWS)
    left_open = {"seed", "n_rows", "spectral.n_components", "spectral.oversampling"}  # the last two from the clusters
    assert set(differences(estimator, run)) == left_open
    assert (estimator.n_components, estimator.n_functions) == (run.n_components, run.n_functions)
    assert estimator.chain == run.chain
    budgets = {name: one.train.steps(10**9) for name, one in estimator.trainings.items()}
    assert budgets == {"autoencoder": 2000, "siamese": 1500, "train": 600, "distill": 1000, "map": 1200}, (
        "as documented"
    )


def test_dscl_does_what_a_run_does_unless_told_otherwise() -> None:
    run = of_a_run("objective=dscl")
    estimator = DSCL(random_state=0).recipe(DIM, run.dscl.n_components)
    # y has the classes to learn from, a run's labels those to judge by too
    assert set(differences(estimator, run)) <= {"seed", "dscl.train_classes"}
    assert estimator.train.model_dump().items() >= type(estimator).budget.items()


@pytest.mark.parametrize("max_steps", ["auto", 70])
def test_a_budget_of_steps_is_that_of_every_training(max_steps: int | Literal["auto"]) -> None:
    trainings = SpectralNet(max_steps=max_steps).recipe(DIM, N_ROWS).trainings
    assert {one.train.max_steps for one in trainings.values()} == {max_steps}


@pytest.mark.parametrize("kind", [SpectralNet, DSCL])
def test_words_are_parameters_by_settings_that_exist(kind: type[NetworkEstimator]) -> None:
    parameters = {*kind().get_params(), *inspect.signature(kind.fit).parameters} - {"self"}
    sections = parse_config("name: x\ndata: {path: shards}", "run.yaml").model_dump()
    for key, word in kind.WORDS.items():
        assert word in parameters
        section, _, field = key.partition(".")
        assert section in sections
        assert not field or field in sections[section], key
    untold = parameters - set(kind.WORDS.values())
    own = {"verbose", "include_constant", "on_window", "y", "X"}
    assert untold <= own, "every parameter that a run has too can be named in its errors"


# ---- errors ------------------------------------------------------------------------------------------------------


def collapse(training: str) -> None:
    refuse_collapse(np.ones(3), 0.0, 120, "in memory", training)


@pytest.mark.parametrize(("training", "instead"), [("autoencoder", "representation"), ("siamese", "affinity_space")])
def test_a_collapsed_network_is_told_in_the_estimators_words(training: str, instead: str) -> None:
    with pytest.raises(CollapsedError) as caught, told_in(SpectralNet.WORDS):
        collapse(training)
    message = str(caught.value)
    assert f"lower {training}.learning_rate (a setting of runs), or raise max_steps, or do without" in message
    assert f"({instead} = " in message
    assert isinstance(caught.value.__cause__, CollapsedError)
    with pytest.raises(CollapsedError, match=rf"lower {training}\.learning_rate, or raise {training}\.max_steps"):
        collapse(training)


def test_steps_that_cannot_be_taken_are_told_in_the_estimators_words() -> None:
    rows = np.random.default_rng(0).normal(size=(60, 3))
    model = DSCL(hidden=(8,), max_steps=25, batch_size=30, learning_rate=1e30, random_state=0)
    with pytest.raises(NonFiniteStepError) as caught:
        model.fit(rows, np.arange(60) % 3)
    assert "20 steps in a row could not be taken (train.max_skipped_steps (a setting of runs))" in str(caught.value)
    assert "; lower learning_rate, set train.max_gradient_norm (a setting of runs), or check" in str(caught.value)


def test_too_few_rows_are_told_in_the_estimators_words() -> None:
    rows = np.random.default_rng(0).normal(size=(20, 3))
    with pytest.raises(TooFewRowsError) as caught:
        SpectralNet(2, n_components=50, **PLAIN).fit(rows)
    assert str(caught.value).startswith("X: holds 20 rows, but ")
    assert "lower n_components, spectral.oversampling (a setting of runs) or n_clusters" in str(caught.value)


def test_another_error_passes_as_it_is() -> None:
    with pytest.raises(ZeroDivisionError, match=r"^train\.max_steps$"), told_in(SpectralNet.WORDS):
        raise ZeroDivisionError("train.max_steps")


@pytest.mark.parametrize("sort", [np.asarray, sparse.csr_matrix], ids=["dense", "sparse"])
def test_constant_rows_are_refused_before_anything_is_trained(sort: Any) -> None:
    with pytest.raises(ConstantDataError, match=r"^X: all 50 rows are equal"):
        SpectralNet(2).fit(sort(np.full((50, 20), 3.0)))


def test_constant_rows_have_no_metric_either() -> None:
    with pytest.raises(ConstantDataError, match=r"^X: all 50 rows are equal"):
        DSCL().fit(np.full((50, 20), 3.0), np.arange(50) % 2)


class Annotated:
    """What AnnData looks like from here."""

    obs: Any = None
    obsm: Any = None


@pytest.mark.parametrize("estimator", [SpectralNet, DSCL])
def test_what_holds_no_features_is_recognised(estimator: type[NetworkEstimator]) -> None:
    with pytest.raises(ConfigError, match=r"X: is an Annotated; call distspectral\.scanpy\.spectral\(X\)"):
        estimator().fit(Annotated(), [0, 1])
    weights = np.triu(np.random.default_rng(0).random((30, 30)) * (np.arange(30) % 3 == 0), 1)
    with pytest.raises(ConfigError, match="the affinities of a graph, where features are expected"):
        estimator().fit(sparse.csr_matrix(weights + weights.T), np.arange(30) % 2)

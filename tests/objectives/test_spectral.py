from __future__ import annotations

import numpy as np
import pytest
import torch

from distspectral.errors import NonFiniteStepError, RankDeficientError
from distspectral.models.orthonorm_layer import OrthonormalLayer, OrthonormConfig
from distspectral.objectives.spectral import SpectralConfig, SpectralObjective, default_n_components
from distspectral.spectral.checks import raise_first
from distspectral.spectral.orthonormalize import cholesky_factor
from distspectral.spectral.rayleigh import linearize
from tests.oracles import all_edges, random_graph

N_FUNCTIONS = 4


@pytest.fixture
def batch():
    rows = torch.from_numpy(np.random.default_rng(0).standard_normal((30, N_FUNCTIONS)))
    return all_edges(rows, random_graph(30, 5))


def make(train_factor="batch", **spectral) -> SpectralObjective:
    layer = OrthonormalLayer(N_FUNCTIONS, OrthonormConfig(train_factor=train_factor, decay=0.5))
    return SpectralObjective(SpectralConfig(**spectral), layer)


def proposed(objective, f, batch, scale=1.0):
    """Return the checked proposal of one process; ``scale`` multiplies the Gram."""
    local = objective.local_sums(f, batch)
    local["gram"] = scale * local["gram"]
    proposal = objective.propose(local, {name: tensor.detach() for name, tensor in local.items()})
    raise_first(proposal.checks)
    return proposal


def value_of(objective, f, batch) -> float:
    return float(proposed(objective, f, batch).value)


@pytest.mark.parametrize("kind", ["trace", "logdet"])
def test_config_decides_the_objective_and_its_epsilon(batch, kind):
    objective = make(objective=kind, epsilon=0.02)
    local = objective.local_sums(batch.vectors, batch)
    expected = linearize(local["energy"], cholesky_factor(local["gram"]), objective=kind, epsilon=0.02).value
    assert value_of(objective, batch.vectors, batch) == float(expected)


def test_value_does_not_depend_on_the_basis_of_the_functions(batch):
    mixing = torch.from_numpy(np.random.default_rng(1).standard_normal((N_FUNCTIONS, N_FUNCTIONS)))
    objective = make(objective="trace")
    assert value_of(objective, batch.vectors @ mixing, batch) == pytest.approx(
        value_of(objective, batch.vectors, batch), rel=1e-6
    )


def test_moving_average_follows_the_steps_gram(batch):
    objective = make()
    proposed(objective, batch.vectors, batch).commit()
    factor = objective.orthonormal.cholesky_factor
    expected = objective.local_sums(batch.vectors, batch)["gram"]
    torch.testing.assert_close(factor @ factor.T, expected, rtol=1e-6, atol=1e-8)


def test_ema_factor_is_used_from_the_second_step_on(batch):
    objective = make("ema", objective="trace")
    first = value_of(objective, batch.vectors, batch)
    assert first == value_of(make(objective="trace"), batch.vectors, batch)
    proposed(objective, batch.vectors, batch, scale=4).commit()
    assert value_of(objective, batch.vectors, batch) == pytest.approx(first / 4, rel=1e-8)


def test_batch_factor_ignores_the_average(batch):
    objective = make(objective="trace")
    first = value_of(objective, batch.vectors, batch)
    proposed(objective, batch.vectors, batch, scale=4).commit()
    assert value_of(objective, batch.vectors, batch) == first


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_sums_that_are_not_finite_are_refused(batch, bad):
    f = batch.vectors.clone()
    f[3, 1] = bad
    with pytest.raises(NonFiniteStepError, match="energy or Gram"):
        value_of(make(), f, batch)


def test_dependent_functions_are_refused(batch):
    layer = OrthonormalLayer(N_FUNCTIONS, OrthonormConfig(jitter=0.0))
    f = batch.vectors.clone()
    f[:, 2] = 0
    with pytest.raises(RankDeficientError, match="function 3"):
        value_of(SpectralObjective(SpectralConfig(), layer), f, batch)


def test_the_average_bears_a_batch_of_dependent_functions(batch):
    layer = OrthonormalLayer(N_FUNCTIONS, OrthonormConfig(train_factor="ema", decay=0.5, jitter=0.0))
    objective = SpectralObjective(SpectralConfig(), layer)
    f = batch.vectors.clone()
    f[:, 2] = 0
    with pytest.raises(RankDeficientError, match="function 3"):
        proposed(objective, f, batch)
    proposed(objective, batch.vectors, batch).commit()
    assert np.isfinite(value_of(objective, f, batch))


@pytest.mark.parametrize(
    ("n_components", "oversampling", "expected"), [(10, None, 16), (30, None, 45), (4, 0, 4), (4, 2, 6), (1, 0, 2)]
)
def test_more_functions_are_trained_than_kept(n_components, oversampling, expected):
    assert SpectralConfig(oversampling=oversampling).n_functions(n_components) == expected


@pytest.mark.parametrize(("n_clusters", "expected"), [("auto", 30), (2, 5), (10, 15), (100, 150)])
def test_more_components_are_kept_than_clusters(n_clusters, expected):
    assert default_n_components(n_clusters) == expected

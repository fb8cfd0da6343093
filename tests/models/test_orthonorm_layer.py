from __future__ import annotations

import numpy as np
import pytest
import torch

from distspectral.errors import RankDeficientError
from distspectral.models.networks import SpectralNetwork
from distspectral.models.orthonorm_layer import OrthonormalLayer, OrthonormConfig, SpectralModel
from distspectral.spectral.checks import raise_first
from distspectral.spectral.orthonormalize import cholesky_factor


def update(layer, gram):
    """Take a Gram into the layer's average, as a training step does."""
    average = layer.averaged(gram)
    raise_first([average.check])
    layer.take(average)


def grams(n: int, width: int = 3) -> list[torch.Tensor]:
    rng = np.random.default_rng(0)
    rows = [rng.standard_normal((50, width)) for _ in range(n)]
    return [torch.from_numpy(f.T @ f / 50) for f in rows]


def test_factor_is_that_of_the_average_gram_and_not_the_average_factor():
    layer = OrthonormalLayer(3, OrthonormConfig(decay=0.7, jitter=0.0))
    values = grams(4)
    for value in values:
        update(layer, value)
    weights = np.array([0.7**3, 0.7**2, 0.7, 1])
    average = sum(w * g for w, g in zip(weights / weights.sum(), values, strict=True))
    torch.testing.assert_close(layer.cholesky_factor, cholesky_factor(average, jitter=0.0), rtol=1e-12, atol=1e-14)
    factors = sum(w * cholesky_factor(g) for w, g in zip(weights / weights.sum(), values, strict=True))
    assert not torch.allclose(layer.cholesky_factor, factors, atol=1e-4)


def test_first_update_already_counts_in_full():
    layer = OrthonormalLayer(3, OrthonormConfig(decay=0.99, jitter=0.0))
    (value,) = grams(1)
    update(layer, value)
    torch.testing.assert_close(layer.cholesky_factor @ layer.cholesky_factor.T, value, rtol=1e-12, atol=1e-14)


def test_outputs_are_orthonormal_under_the_averaged_gram():
    f = torch.from_numpy(np.random.default_rng(1).standard_normal((80, 3)))
    layer = OrthonormalLayer(3, OrthonormConfig(jitter=0.0))
    update(layer, f.T @ f / 80)
    y = layer(f)
    np.testing.assert_allclose(y.T @ y / 80, np.eye(3), atol=1e-12)


def test_layer_starts_as_the_identity():
    f = torch.randn(5, 3)
    assert torch.equal(OrthonormalLayer(3, OrthonormConfig())(f), f)


def test_state_dict_carries_the_average_on():
    first, second = (OrthonormalLayer(3, OrthonormConfig(decay=0.9)) for _ in range(2))
    values = grams(5)
    for value in values[:3]:
        update(first, value)
    second.load_state_dict(first.state_dict())
    for value in values[3:]:
        update(first, value)
        update(second, value)
    assert int(second.n_updates) == 5
    assert torch.equal(first.cholesky_factor, second.cholesky_factor)


def test_average_without_full_rank_is_refused():
    layer = OrthonormalLayer(2, OrthonormConfig(jitter=0.0))
    with pytest.raises(RankDeficientError):
        update(layer, torch.ones(2, 2, dtype=torch.float64))


def test_model_whitens_what_its_network_emits():
    network = SpectralNetwork(4, 3, (8,))
    model = SpectralModel(network, OrthonormalLayer(3, OrthonormConfig()))
    rows = torch.randn(30, 4)
    f = network(rows)
    update(model.orthonormal, (f.T @ f / 30).double())
    y = model(rows)
    np.testing.assert_allclose((y.T @ y / 30).detach(), np.eye(3), atol=1e-4)
    assert {"orthonormal.gram_average", "orthonormal.cholesky_factor", "orthonormal.n_updates"} <= set(
        model.state_dict()
    )


def test_a_gram_that_cannot_be_factored_leaves_the_layer_as_it_was():
    layer = OrthonormalLayer(3, OrthonormConfig(decay=0.5))
    update(layer, torch.eye(3, dtype=torch.float64))
    before = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    with pytest.raises(RankDeficientError):
        update(layer, -9 * torch.eye(3, dtype=torch.float64))
    assert all(torch.equal(tensor, before[name]) for name, tensor in layer.state_dict().items())

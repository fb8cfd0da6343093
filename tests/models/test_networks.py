from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from distspectral.models.networks import NetworkConfig, Perceptron, SpectralNetwork


@pytest.fixture
def rows():
    return torch.randn(20, 4, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def network(rows):
    torch.manual_seed(0)
    network = SpectralNetwork(4, 6, (16, 8))
    network.perceptron.standardize_by(rows.mean(0), 2.5)
    return network


def test_first_function_is_the_constant_and_the_rest_is_learned(network, rows):
    f = network(rows)
    assert f.shape == (20, 6)
    assert (f[:, 0] == 1).all()
    assert torch.equal(f[:, 1:], network.perceptron(rows))


def test_input_is_standardised_by_buffers_of_the_state(network, rows):
    inside = network.perceptron.trunk((rows - rows.mean(0)) / 2.5)
    torch.testing.assert_close(network.perceptron(rows), network.perceptron.head(inside))
    assert {"perceptron.input_mean", "perceptron.input_scale"} <= set(network.state_dict())


@pytest.mark.parametrize("n_kept", [6, 4, 1])
def test_folded_network_emits_the_rotated_functions(network, rows, n_kept):
    rotation = torch.randn(6, n_kept, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    folded = network.folded(rotation)
    torch.testing.assert_close(folded(rows), (network(rows).double() @ rotation).float(), rtol=1e-5, atol=1e-5)
    assert folded.head.weight.dtype == torch.float32


def test_every_function_is_made_of_the_units_and_the_constant(network, rows):
    units = network.units(rows)
    coefficients = torch.randn(units.shape[1], 6, dtype=torch.float64)
    coefficients[:, 0] = 0
    coefficients[0, 0] = 1
    network.set_head(coefficients)
    torch.testing.assert_close(network(rows), units @ coefficients.float())


def test_folding_leaves_the_network_alone(network, rows):
    before = network(rows)
    folded = network.folded(torch.eye(6, dtype=torch.float64))
    with torch.no_grad():
        folded.trunk[0].weight.zero_()
        folded.input_mean.zero_()
    assert torch.equal(network(rows), before)


@pytest.mark.parametrize("hidden", [(5,), (7, 3), (4, 4, 4)])
def test_state_alone_restores_the_perceptron_without_touching_the_random_state(hidden, rows):
    perceptron = Perceptron(4, 3, hidden)
    perceptron.standardize_by(rows.mean(0), 3.0)
    random_state = torch.random.get_rng_state()
    restored = Perceptron.from_state(perceptron.state_dict())
    assert torch.equal(torch.random.get_rng_state(), random_state)
    assert torch.equal(restored(rows), perceptron(rows))
    assert not restored.training


def test_double_network_computes_in_float64(network, rows):
    assert network.double()(rows).dtype == torch.float64


@pytest.mark.parametrize("hidden", [(), (0,), (8, -1)])
def test_widths_must_be_positive_and_there_must_be_one(hidden):
    with pytest.raises(ValidationError, match="hidden"):
        NetworkConfig(hidden=hidden)


def test_sparse_rows_have_the_outputs_and_gradients_of_dense_ones():
    torch.manual_seed(0)
    network, rows = Perceptron(30, 2, (7, 5)), torch.randn(20, 30) * (torch.rand(20, 30) < 0.1)
    network.standardize_by(rows.mean(0), torch.linspace(0.5, 2, 30))
    found = []
    for x in (rows, rows.to_sparse()):
        network.zero_grad()
        outputs = network(x)
        outputs.square().sum().backward()
        found.append([outputs.detach(), *(parameter.grad.clone() for parameter in network.parameters())])
    for dense, thin in zip(*found, strict=True):
        torch.testing.assert_close(thin, dense, rtol=1e-4, atol=1e-5)


def test_sparse_rows_pass_a_network_whose_other_layers_round_factors():
    torch.manual_seed(0)
    network, rows = Perceptron(30, 2, (7, 5)), torch.randn(20, 30) * (torch.rand(20, 30) < 0.1)
    with torch.autocast("cpu", torch.bfloat16):
        dense, thin = network(rows), network(rows.to_sparse())
    thin.float().square().sum().backward()
    torch.testing.assert_close(thin, dense, rtol=0.05, atol=0.02)
    assert all(torch.isfinite(parameter.grad).all() for parameter in network.parameters())

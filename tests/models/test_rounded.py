from __future__ import annotations

import pytest
import torch

from distspectral.models import rounded
from distspectral.models.autoencoder import Autoencoder
from distspectral.models.networks import Perceptron
from distspectral.precision import outputs_in

pytestmark = pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="this CPU does not multiply in bfloat16"
)
DIM = 20


@pytest.fixture
def perceptron():
    torch.manual_seed(0)
    made = Perceptron(DIM, 5, (32, 24))
    made.standardize_by(torch.randn(DIM), torch.rand(DIM) + 0.5)
    return made


def learned(network, rows, factors="bfloat16"):
    """Return the outputs and the gradients of their sum of cubes."""
    network.zero_grad()
    outputs = outputs_in(factors, network, rows)
    outputs.pow(3).sum().backward()
    return [outputs.detach(), *(parameter.grad for parameter in network.parameters())]


def by_autograd(monkeypatch, network, rows):
    with monkeypatch.context() as patch:
        patch.setattr("distspectral.models.networks.learns_rounded", lambda _: False)
        return learned(network, rows)


def assert_alike(found, expected):
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype
        # a few roundings to eight bits, which need not fall alike
        assert (one - other).norm() < 5e-3 * other.norm()


def calls(monkeypatch):
    """Return a list that grows by one with each pass by hand."""
    made, original = [], rounded._RoundedLayers.apply
    monkeypatch.setattr(rounded._RoundedLayers, "apply", lambda *given: made.append(1) or original(*given))
    return made


@pytest.mark.parametrize("hidden", [(), (32,), (32, 24)])
def test_outputs_and_gradients_are_those_of_autocast(hidden, monkeypatch):
    torch.manual_seed(0)
    network = Perceptron(DIM, 5, hidden)
    network.standardize_by(torch.randn(DIM), torch.rand(DIM) + 0.5)
    rows = torch.randn(100, DIM)
    made = calls(monkeypatch)
    found = learned(network, rows)
    assert made == [1]
    assert_alike(found, by_autograd(monkeypatch, network, rows))
    assert made == [1]


def test_gradient_reaches_the_rows(monkeypatch):
    torch.manual_seed(0)
    network = Autoencoder(DIM, 4, (32, 24))
    network.decoder.standardize_by(torch.randn(4), torch.rand(4) + 0.5)
    rows = torch.randn(100, DIM)
    assert_alike(learned(network, rows), by_autograd(monkeypatch, network, rows))


def test_blocks_of_rows_change_nothing(perceptron, monkeypatch):
    rows = torch.randn(100, DIM)
    whole = learned(perceptron, rows)
    monkeypatch.setattr(rounded, "BLOCK_VALUES", 7 * DIM)
    for one, other in zip(learned(perceptron, rows), whole, strict=True):
        assert torch.equal(one, other)


def test_a_network_that_learns_no_more_gets_no_gradient(perceptron):
    outputs = outputs_in("bfloat16", perceptron.requires_grad_(False), torch.randn(10, DIM))
    assert not outputs.requires_grad


def test_float32_and_passes_without_gradient_are_torchs_own(perceptron, monkeypatch):
    made = calls(monkeypatch)
    learned(perceptron, torch.randn(10, DIM), "float32")
    with torch.no_grad():
        outputs_in("bfloat16", perceptron, torch.randn(10, DIM))
    assert made == []

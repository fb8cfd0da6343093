from __future__ import annotations

import pytest
import torch

from distspectral.models.autoencoder import Autoencoder
from distspectral.models.encoded import EncodedNetwork
from distspectral.models.networks import Perceptron

WIDTHS = {"vector": 6, "code": 3, "siamese": 4}


def network(inputs, with_code):
    torch.manual_seed(0)
    encoder = Perceptron(6, 3, (8,)) if with_code else None
    siamese = Perceptron(3 if with_code else 6, 4, (8,)) if "siamese" in inputs else None
    return EncodedNetwork(Perceptron(sum(WIDTHS[name] for name in inputs), 2, (5,)), inputs, encoder, siamese)


@pytest.mark.parametrize(
    ("inputs", "with_code"),
    [
        (("vector",), False),
        (("siamese",), False),
        (("vector", "siamese"), False),
        (("code",), True),
        (("code", "siamese"), True),
        (("siamese",), True),
        (("vector", "code", "siamese"), True),
    ],
)
def test_a_raw_row_passes_the_encoders_then_the_perceptron(inputs, with_code):
    one, rows = network(inputs, with_code), torch.randn(9, 6, generator=torch.Generator().manual_seed(1))
    code = one.encoder(rows) if with_code else rows
    spaces = {"vector": rows, "code": code, "siamese": one.siamese(code) if one.siamese else None}
    expected = one.perceptron(torch.cat([spaces[name] for name in inputs], dim=1))
    assert torch.equal(one(rows), expected)
    assert one.dim == 6
    restored = EncodedNetwork.from_state(one.state())
    assert torch.equal(restored(rows), expected)
    assert (restored.dim, restored.inputs, restored.training) == (6, inputs, False)


def test_inputs_that_nothing_makes_are_refused():
    with pytest.raises(AssertionError):
        EncodedNetwork(Perceptron(3, 2, (5,)), ("code",))


def test_the_autoencoder_mirrors_itself():
    model = Autoencoder(6, 2, (9, 7))
    shapes = [tuple(p.shape) for p in model.parameters() if p.ndim == 2]
    assert shapes == [(9, 6), (7, 9), (2, 7), (7, 2), (9, 7), (6, 9)]
    rows = torch.randn(4, 6)
    assert torch.equal(model(rows), model.decoder(model.encoder(rows)))


@pytest.mark.parametrize("inputs", [("vector",), ("vector", "siamese"), ("siamese",)])
def test_sparse_rows_pass_all_parts(inputs):
    torch.manual_seed(0)
    siamese, rows = Perceptron(30, 2, (5,)), torch.randn(9, 30) * (torch.rand(9, 30) < 0.1)
    perceptron = Perceptron(sum({"vector": 30, "siamese": 2}[name] for name in inputs), 3, (6,))
    network = EncodedNetwork(perceptron, inputs, siamese=siamese)
    torch.testing.assert_close(network(rows.to_sparse()), network(rows), rtol=1e-4, atol=1e-5)

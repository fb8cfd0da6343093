from __future__ import annotations

import re

import pytest
import torch
from torch import nn

from distspectral.errors import ConfigError
from distspectral.models.networks import NetworkConfig, Perceptron
from distspectral.models.trunks import conv_trunk, embedding_network, trunk_factory

CONV = "distspectral.models.trunks:conv_trunk"


def linear(dim: int, n_outputs: int, bias: bool = True) -> nn.Module:
    return nn.Linear(dim, n_outputs, bias=bias)


def too_wide(dim: int, n_outputs: int) -> nn.Module:
    return nn.Linear(dim, n_outputs + 1)


def no_module(dim: int, n_outputs: int) -> str:
    return f"{dim} to {n_outputs}"


def test_without_a_trunk_the_network_is_a_perceptron():
    network = embedding_network(5, 3, NetworkConfig(hidden=(7,)))
    assert isinstance(network, Perceptron)
    assert network(torch.zeros(2, 5)).shape == (2, 3)


def test_a_trunk_of_the_users_is_called_with_its_options_on_standardised_rows():
    network = embedding_network(5, 3, NetworkConfig(trunk=f"{__name__}:linear", trunk_options={"bias": False}))
    network.standardize_by(torch.full((5,), 2.0), 4.0)
    rows = torch.randn(6, 5)
    torch.testing.assert_close(network(rows), network.trunk((rows - 2) / 4))
    assert network.trunk.bias is None
    assert network.training


def test_images_pass_the_convolutional_trunk():
    trunk = conv_trunk(2 * 7 * 10, 5, image_shape=(2, 7, 10), channels=(8, 16))
    rows = torch.randn(3, 140)
    assert trunk(rows).shape == (3, 5)
    torch.testing.assert_close(trunk(rows)[1:2], trunk(rows[1:2]), msg="a row depends on no other row")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("linear", "expected module:callable"),
        (":linear", "expected module:callable"),
        ("no.such.module:x", "cannot be imported"),
        (f"{__name__}:absent", "cannot be imported"),
        (f"{__name__}:CONV", "is a str; expected a callable"),
    ],
)
def test_a_name_that_is_no_factory_is_refused(name, message):
    with pytest.raises(ConfigError, match=message) as refused:
        trunk_factory(name)
    assert refused.value.parameters == ("network.trunk",)


@pytest.mark.parametrize(
    ("trunk", "options", "message"),
    [
        (f"{__name__}:linear", {"biass": True}, "unexpected keyword argument 'biass'"),
        (f"{__name__}:too_wide", {}, r"maps \(2, 6\) to \(2, 4\); expected \(2, 3\)"),
        (f"{__name__}:no_module", {}, r"returned a str; expected a torch\.nn\.Module"),
        (CONV, {"image_shape": [1, 2, 4]}, r"image_shape \[1, 2, 4\] holds 8 values, rows have 6"),
        (CONV, {}, "image_shape"),
    ],
)
def test_a_trunk_that_does_not_fit_is_refused_before_training(trunk, options, message):
    with pytest.raises(ConfigError, match=message) as refused:
        embedding_network(6, 3, NetworkConfig(trunk=trunk, trunk_options=options))
    assert set(refused.value.parameters) == set(re.findall(r"network\.\w+", str(refused.value)))

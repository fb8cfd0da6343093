from __future__ import annotations

import pickle

import torch
from torch import nn

from distspectral.embedding.loading import Loader

CPU, META = torch.device("cpu"), torch.device("meta")


def linear() -> nn.Linear:
    return nn.Linear(3, 2)


def test_equal_loaders_load_once_and_a_pickled_one_is_equal() -> None:
    calls: list[str] = []

    def loader(name: str) -> Loader[nn.Linear]:
        return Loader((name,), lambda: calls.append(name) or linear())

    network = loader("a").on(CPU)
    assert not network.training
    assert loader("a").on(CPU) is network
    assert calls == ["a"]
    assert loader("b").on(CPU) is not network
    assert loader("b").on(META).weight.device == META
    assert calls == ["a", "b", "b"]
    one = Loader(("c",), linear)
    assert pickle.loads(pickle.dumps(one)).on(CPU) is one.on(CPU)

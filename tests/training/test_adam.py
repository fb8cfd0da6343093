"""Torch's Adam without its compiler: same steps, same state, a process that stays light."""

from __future__ import annotations

import copy
import subprocess
import sys

import torch
from torch import nn, optim

from distspectral.training.adam import Adam

SCRIPT = """
import sys
import torch
from distspectral.training.adam import Adam

weight = torch.nn.Parameter(torch.ones(3))
optimizer = Adam([weight], lr=0.1, fused=True)
weight.square().sum().backward()
optimizer.step()
optimizer.zero_grad()
optimizer.load_state_dict(optimizer.state_dict())
sys.exit("torch._dynamo" in sys.modules)
"""


def test_it_does_not_import_the_compiler() -> None:
    assert subprocess.run([sys.executable, "-c", SCRIPT], check=False).returncode == 0


def test_it_steps_as_torchs_does_and_takes_up_its_state() -> None:
    rows = torch.randn(8, 5, generator=torch.Generator().manual_seed(0))
    networks = [nn.Linear(5, 2), nn.Linear(5, 2)]
    networks[1].load_state_dict(networks[0].state_dict())
    optimizers: list[optim.Optimizer] = [
        make(network.parameters(), lr=0.1, fused=True)
        for make, network in zip((Adam, optim.Adam), networks, strict=True)
    ]
    for step in range(6):
        for network, optimizer in zip(networks, optimizers, strict=True):
            optimizer.zero_grad()
            network(rows).square().sum().backward()
            optimizer.step()
        if step == 3:
            optimizers[0].load_state_dict(copy.deepcopy(optimizers[1].state_dict()))
    for ours, theirs in zip(networks[0].parameters(), networks[1].parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_moments_without_gradients_do_not_fade_into_subnormal_numbers() -> None:
    weight = nn.Parameter(torch.ones(4))
    optimizer = Adam([weight], lr=0.1, fused=True)
    weight.square().sum().backward()
    optimizer.step()
    for _ in range(2000):
        weight.grad = torch.tensor([0.0, 0.0, 0.0, 1.0])
        optimizer.step()
        if optimizer.state[weight]["step"] % 100 == 0:
            optimizer.forget_vanished()
    first = optimizer.state[weight]["exp_avg"]
    assert first[:3].eq(0).all()
    assert first[3] > 0.99

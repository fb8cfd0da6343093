"""What the projector loss costs: seconds by batch and width, and its share of a ResNet-18's training step.

The network's step grows linearly with its rows, so it is timed on a few and scaled up to the batch.
Shape letters: B rows of a batch, E embedding width.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from distspectral.models.orthonorm_layer import OrthonormalLayer, OrthonormConfig
from distspectral.objectives.batches import LabeledBatch
from distspectral.objectives.dscl import DSCLObjective
from distspectral.spectral import DSCLLoss

ROWS_PER_CLASS = 8
REPEATS = 5
STAGES = ((64, 1), (128, 2), (256, 2), (512, 2))
"""Channels and first stride of ResNet-18's four pairs of blocks."""


class Block(nn.Module):
    """Two 3 x 3 convolutions and a shortcut."""

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False),
            nn.BatchNorm2d(n_out),
            nn.ReLU(),
            nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False),
            nn.BatchNorm2d(n_out),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or n_in != n_out:
            self.shortcut = nn.Sequential(nn.Conv2d(n_in, n_out, 1, stride, bias=False), nn.BatchNorm2d(n_out))

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's outputs."""
        outputs: Tensor = torch.relu(self.body(x) + self.shortcut(x))
        return outputs


def resnet18(width: int) -> nn.Module:
    """Return a ResNet-18 with an embedding of ``width``: 11 million weights, image to (B, E)."""
    layers: list[nn.Module] = [
        nn.Conv2d(3, 64, 7, 2, 3, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, 1),
    ]
    n_in = 64
    for n_out, stride in STAGES:
        layers += [Block(n_in, n_out, stride), Block(n_out, n_out, 1)]
        n_in = n_out
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, width))


def loss_seconds(n_rows: int, width: int, device: torch.device) -> dict[str, float]:
    """Return the median seconds of loss and gradient: as a drop-in loss, and as the trainer's objective."""
    generator = torch.Generator().manual_seed(0)
    f = torch.randn(n_rows, width, generator=generator).to(device).requires_grad_()
    classes = torch.arange(n_rows, device=device) // ROWS_PER_CLASS
    loss, n_classes = DSCLLoss(), int(classes[-1]) + 1
    objective = DSCLObjective(OrthonormalLayer(width, OrthonormConfig()).to(device))
    batch = LabeledBatch(f.detach(), classes, n_classes)

    def drop_in() -> None:
        f.grad = None
        loss(f, classes).backward()

    def in_trainer() -> None:
        f.grad = None
        local = objective.local_sums(f, batch)
        proposal = objective.propose(local, {name: tensor.detach() for name, tensor in local.items()})
        proposal.loss.backward()  # type: ignore[no-untyped-call]

    return {"loss": _median_seconds(drop_in, device), "objective": _median_seconds(in_trainer, device)}


def cost(
    batches: Sequence[int], width: int, image_side: int, network_rows: int, device: torch.device
) -> dict[str, Any]:
    """Return seconds of the loss for each batch, their ratios, and the share of a ResNet-18's step.

    Args:
        batches: rows, each twice the one before.
        width: E.
        image_side: pixels, in colour.
        network_rows: rows that the network's step is timed on, then scaled up to the last batch.
        device: where.
    """
    seconds = {n_rows: loss_seconds(n_rows, width, device) for n_rows in batches}
    network = resnet18(width).to(device)
    images = torch.randn(network_rows, 3, image_side, image_side, device=device)
    optimizer = torch.optim.Adam(network.parameters())

    def step() -> None:
        optimizer.zero_grad()
        network(images).square().mean().backward()
        optimizer.step()

    largest = batches[-1]
    step_seconds = _median_seconds(step, device) * largest / network_rows
    return {
        "width": width,
        "seconds": seconds,
        "doubling": [seconds[b]["objective"] / seconds[a]["objective"] for a, b in itertools.pairwise(batches)],
        "resnet18_step_seconds": step_seconds,
        "share_of_step": seconds[largest]["objective"] / step_seconds,
    }


def _median_seconds(function: Callable[[], None], device: torch.device) -> float:
    function()
    times = []
    for _ in range(REPEATS):
        _synchronize(device)
        began = time.perf_counter()
        function()
        _synchronize(device)
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)

"""A batch of labelled rows, and a step of an objective on it.

Shape letters: B rows, E features.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from distspectral.objectives.batches import LabeledBatch
from distspectral.objectives.proposal import StepRevisedError
from distspectral.spectral.checks import raise_first

E = 4


def batch(n_rows: int = 30, n_classes: int = 5, seed: int = 0) -> LabeledBatch:
    """Return random rows (B, E), whose classes take turns."""
    generator = torch.Generator().manual_seed(seed)
    return LabeledBatch(torch.randn(n_rows, E, generator=generator), torch.arange(n_rows) % n_classes, n_classes)


def step(objective: Any, one: LabeledBatch) -> tuple[Tensor | None, Tensor, dict[str, Tensor]]:
    """Return the gradient (B, E), the value and the sums of one step of a network that is the identity."""
    f = one.vectors.clone().requires_grad_()
    local = objective.local_sums(f, one)
    total = {name: tensor.detach() for name, tensor in local.items()}
    proposal = objective.propose(local, total)
    try:
        raise_first(proposal.checks)
    except StepRevisedError:
        proposal = objective.propose(local, total)
    proposal.loss.backward()
    proposal.commit()
    return f.grad, proposal.value, total

"""The objective of a network that learns known functions: the mean squared error, rows weighed by their mass."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from distspectral.errors import NonFiniteStepError
from distspectral.objectives.batches import TeachingBatch
from distspectral.objectives.proposal import Proposal
from distspectral.spectral.checks import finite


class DistillationObjective:
    """Sums and surrogate of the squared error of functions whose mean square is 1: what they leave unexplained.

    Args:
        head: the network's last layer.
    """

    unit = "rows"
    watched = "loss"
    bears_rounding = True

    def __init__(self, head: nn.Linear) -> None:
        self.head = head

    def local_sums(self, outputs: Tensor, batch: TeachingBatch) -> dict[str, Tensor]:
        """Return this rank's squared error and mass, () float64 each; gradient flows to ``outputs``."""
        of_rows = (outputs - batch.targets).square().mean(1)
        return {
            "squared_error": (batch.mass * of_rows).sum(dtype=torch.float64),
            "mass": batch.mass.sum(dtype=torch.float64),
        }

    def propose(self, local: dict[str, Tensor], total: dict[str, Tensor]) -> Proposal:
        """Return this rank's share of the mean squared error, the whole of it, and the check that it is finite."""
        mass = total["mass"].clamp(min=torch.finfo(torch.float64).tiny)  # of rows without edges there is none
        return Proposal(
            loss=local["squared_error"] / mass,
            value=total["squared_error"] / mass,
            checks=(finite(NonFiniteStepError("the functions' error is NaN or infinite"), total["squared_error"]),),
        )

    def window_sums(self, total: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return nothing: the mean loss says it all."""
        return {}

    def metrics(self, sums: dict[str, Tensor], n_steps: int) -> dict[str, Any]:
        """Return nothing besides the loss."""
        return {}

    def shared_state(self) -> dict[str, Tensor]:
        """Return the last bias: weights that drift apart show there first."""
        return {"the network's last bias": self.head.bias.detach()}

"""The autoencoder's objective: the mean squared error of rows rebuilt from their codes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from distspectral.errors import NonFiniteStepError
from distspectral.models.autoencoder import Autoencoder
from distspectral.objectives.batches import ReconstructionBatch
from distspectral.objectives.proposal import Proposal
from distspectral.spectral.checks import finite


class ReconstructionObjective:
    """Sums and surrogate of the squared error, in units of the features' mean variance: 1 is as bad as the mean.

    Args:
        model: standardises the targets.
    """

    unit = "rows"
    watched = "loss"
    bears_rounding = True

    def __init__(self, model: Autoencoder) -> None:
        self.model = model

    def local_sums(self, outputs: Tensor, batch: ReconstructionBatch) -> dict[str, Tensor]:
        """Return this rank's squared error and number of values, () float64 each; gradient flows to ``outputs``."""
        targets = self.model.encoder.standardize(batch.targets)
        of_rows = functional.mse_loss(outputs, targets, reduction="none").sum(1)
        return {
            "squared_error": of_rows.sum(dtype=torch.float64),
            "n_values": torch.tensor(float(outputs.numel()), dtype=torch.float64, device=outputs.device),
        }

    def propose(self, local: dict[str, Tensor], total: dict[str, Tensor]) -> Proposal:
        """Return this rank's share of the mean squared error, the whole of it, and the check that it is finite."""
        return Proposal(
            loss=local["squared_error"] / total["n_values"],
            value=total["squared_error"] / total["n_values"],
            checks=(finite(NonFiniteStepError("the autoencoder's error is NaN or infinite"), total["squared_error"]),),
        )

    def window_sums(self, total: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return nothing: the mean loss says it all."""
        return {}

    def metrics(self, sums: dict[str, Tensor], n_steps: int) -> dict[str, Any]:
        """Return nothing besides the loss."""
        return {}

    def shared_state(self) -> dict[str, Tensor]:
        """Return the last bias: weights that drift apart show there first."""
        return {"the decoder's last bias": self.model.decoder.head.bias.detach()}

"""The autoencoder's objective: the mean squared error of rows rebuilt from their codes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from distspectral.errors import NonFiniteStepError
from distspectral.models.autoencoder import Autoencoder
from distspectral.objectives.batches import ReconstructionBatch


class ReconstructionObjective:
    """Sums and surrogate of the squared error, in units of the features' mean variance: 1 is as bad as the mean.

    Args:
        model: standardises the targets.
    """

    unit = "rows"
    watched = "loss"

    def __init__(self, model: Autoencoder) -> None:
        self.model = model

    def local_sums(self, outputs: Tensor, batch: ReconstructionBatch) -> dict[str, Tensor]:
        """Return this rank's squared error and number of values, () float64 each; gradient flows to ``outputs``."""
        error = outputs - self.model.encoder.standardize(batch.targets)
        return {
            "squared_error": error.square().sum(dtype=torch.float64),
            "n_values": torch.tensor(float(error.numel()), dtype=torch.float64, device=error.device),
        }

    def surrogate(self, local: dict[str, Tensor], total: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return this rank's share of the mean squared error, to be differentiated, and the whole of it.

        Raises:
            NonFiniteStepError: it is NaN or infinite; every rank raises, for all see the same sums.
        """
        if not bool(torch.isfinite(total["squared_error"])):
            raise NonFiniteStepError(
                "the autoencoder's error is NaN or infinite: lower autoencoder.learning_rate, or check the vectors' "
                "range"
            )
        return local["squared_error"] / total["n_values"], (total["squared_error"] / total["n_values"]).detach()

    def after_step(self, total: dict[str, Tensor]) -> None:
        """Do nothing: no state follows the sums."""

    def window_sums(self, total: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return nothing: the mean loss says it all."""
        return {}

    def metrics(self, sums: dict[str, Tensor], n_steps: int) -> dict[str, Any]:
        """Return nothing besides the loss."""
        return {}

    def shared_state(self) -> dict[str, Tensor]:
        """Return the last bias: weights that drift apart show there first."""
        return {"the decoder's last bias": self.model.decoder.head.bias.detach()}

"""The Siamese objective: neighbours in the graph near each other, random rows a margin apart."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from distspectral.errors import NonFiniteStepError
from distspectral.models.networks import Perceptron
from distspectral.objectives.batches import PairBatch
from distspectral.objectives.proposal import Proposal
from distspectral.spectral.checks import finite
from distspectral.spectral.contrastive import contrastive_losses, squared_pair_distances


class SiameseObjective:
    """Sums and surrogate of the contrastive loss.

    Args:
        model: whose outputs are compared.
        margin: distance beyond which a negative pair costs nothing.
    """

    unit = "pairs"
    watched = "loss"
    bears_rounding = True

    def __init__(self, model: Perceptron, margin: float) -> None:
        self.model, self.margin = model, margin

    def local_sums(self, outputs: Tensor, batch: PairBatch) -> dict[str, Tensor]:
        """Return this rank's loss, pairs, and distances of either kind, () float64 each.

        Gradient flows to ``outputs`` through ``loss`` alone.
        """
        squared = squared_pair_distances(outputs, batch.heads, batch.tails)
        losses = contrastive_losses(squared, batch.is_neighbor, self.margin)
        distances, near = squared.detach().double().sqrt(), batch.is_neighbor.double()
        return {
            "loss": losses.sum(dtype=torch.float64),
            "n_neighbors": near.sum(),
            "n_negatives": (1 - near).sum(),
            "neighbor_distance": distances @ near,
            "negative_distance": distances @ (1 - near),
        }

    def propose(self, local: dict[str, Tensor], total: dict[str, Tensor]) -> Proposal:
        """Return this rank's share of the mean loss over pairs, the whole of it, and the check that it is finite."""
        n_pairs = total["n_neighbors"] + total["n_negatives"]
        return Proposal(
            loss=local["loss"] / n_pairs,
            value=total["loss"] / n_pairs,
            checks=(finite(NonFiniteStepError("the Siamese loss is NaN or infinite"), total["loss"]),),
        )

    def window_sums(self, total: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the step's counts and distances."""
        return {name: value for name, value in total.items() if name != "loss"}

    def metrics(self, sums: dict[str, Tensor], n_steps: int) -> dict[str, Any]:
        """Return the mean distance of neighbours and of negative pairs."""
        return {
            f"{kind}_distance": float(sums[f"{kind}_distance"] / sums[f"n_{kind}s"].clamp(min=1))
            for kind in ("neighbor", "negative")
        }

    def shared_state(self) -> dict[str, Tensor]:
        """Return the last bias: weights that drift apart show there first."""
        return {"the network's last bias": self.model.head.bias.detach()}

"""The objective of the map: neighbours in the graph near each other, each row apart from random ones."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from distspectral.errors import NonFiniteStepError
from distspectral.models.map_network import MapNetwork
from distspectral.objectives.batches import MapBatch
from distspectral.objectives.proposal import Proposal
from distspectral.spectral.checks import finite
from distspectral.spectral.contrastive import cauchy_losses, squared_pair_distances

EXAGGERATION = 1.5
"""Of the attraction over t-SNE's own. It draws parts of a cluster together that t-SNE leaves apart: of 8,572 rows of
MNIST, 9% of the edges are longer than a fifth of the map's radius in place of 14%, and trustworthiness and accuracy of
labels in the plane rise by .005 and .009. Twice as much keeps fewer neighbours."""


class MapObjective:
    """Sums and surrogate of t-SNE's loss over drawn edges and random rows.

    A sum over edges, whose random rows are the same on all ranks: the gradients of ranks add up to that of one process.

    Args:
        model: whose outputs are places.
    """

    unit = "edges"
    watched = "loss"
    bears_rounding = True

    def __init__(self, model: MapNetwork) -> None:
        self.model = model

    def local_sums(self, outputs: Tensor, batch: MapBatch) -> dict[str, Tensor]:
        """Return this rank's shares of means over edges, () float64 each: the loss, and distances.

        Gradient flows to ``outputs`` (B, 2) through ``loss`` alone.
        """
        losses = cauchy_losses(outputs, batch.heads, batch.tails, batch.negatives, EXAGGERATION)
        places, weights = outputs.detach(), batch.weights
        near = squared_pair_distances(places, batch.heads, batch.tails).sqrt()
        far = (places[batch.heads] - places[batch.negatives].mean(0)).square().sum(1).sqrt()
        return {
            "loss": losses.double() @ weights,
            "neighbor_distance": near.double() @ weights,
            "radius": far.double() @ weights,
        }

    def propose(self, local: dict[str, Tensor], total: dict[str, Tensor]) -> Proposal:
        """Return this rank's share of the mean loss over edges, the whole of it, and the check that it is finite."""
        return Proposal(
            loss=local["loss"],
            value=total["loss"].detach(),
            checks=(finite(NonFiniteStepError("the map's loss is NaN or infinite"), total["loss"]),),
        )

    def window_sums(self, total: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the step's distances."""
        return {name: value for name, value in total.items() if name != "loss"}

    def metrics(self, sums: dict[str, Tensor], n_steps: int) -> dict[str, Any]:
        """Return the mean distance of neighbours, and of rows to the middle of the map."""
        return {name: float(value) / n_steps for name, value in sums.items()}

    def shared_state(self) -> dict[str, Tensor]:
        """Return the last bias: weights that drift apart show there first."""
        return {"the map's last bias": self.model.head.bias.detach()}

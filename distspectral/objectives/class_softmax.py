"""The softmax over class means as objective: DSCL's sums, and a second all-reduce of what rows say of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from distspectral.comm import collectives
from distspectral.errors import NonFiniteStepError
from distspectral.models.orthonorm_layer import OrthonormalLayer
from distspectral.objectives.batches import LabeledBatch
from distspectral.objectives.dscl import DSCLConfig, labeled_metrics, labeled_window_sums
from distspectral.objectives.proposal import Proposal
from distspectral.spectral.checks import finite
from distspectral.spectral.class_softmax import assign, unit_rows
from distspectral.spectral.dscl import class_counts, class_sums, enough_classes
from distspectral.spectral.rayleigh import gram


class ClassSoftmaxObjective:
    """Sums, surrogate and moving average of the softmax over class means; see ``spectral.class_softmax``.

    Args:
        orthonormal: the layer whose moving average each step updates.
        config: ridge and temperature.
    """

    unit = "rows"
    watched = "loss"
    bears_rounding = True

    def __init__(self, orthonormal: OrthonormalLayer, config: DSCLConfig) -> None:
        self.orthonormal = orthonormal
        self.config = config
        self._asked: tuple[Tensor, Tensor] | None = None

    def local_sums(self, outputs: Tensor, batch: LabeledBatch) -> dict[str, Tensor]:
        """Return this rank's shares of S (E, E), B (C, E) and n_c (C,) of unit rows; these are kept meanwhile."""
        rows = unit_rows(outputs)
        self._asked = rows, batch.classes
        return {
            "gram": gram(rows, torch.ones_like(rows[:, 0])),
            "class_sums": class_sums(rows, batch.classes, batch.n_classes),
            "class_counts": class_counts(batch.classes, batch.n_classes),
        }

    def propose(self, local: dict[str, Tensor], total: dict[str, Tensor]) -> Proposal:
        """Return this rank's surrogate, the loss, and the moving average with the mean of the step's rows.

        Args:
            local: what :meth:`local_sums` returned last.
            total: the same summed over ranks.

        Communication: one all-reduce of the loss and its derivatives by S and B.
        """
        assert self._asked is not None, "sums come before their proposal"
        (rows, classes), self._asked = self._asked, None
        counts, n_rows = total["class_counts"], total["class_counts"].sum()
        sums = total["gram"], total["class_sums"], counts
        own = assign(rows, classes, *sums, self.config.ridge, self.config.temperature)
        added = collectives.all_reduce_sum(
            {"loss": own.loss, "gram": own.gram_coefficient, "class_sums": own.class_coefficient}
        )
        through_sums = sum((added[name] * local[name]).sum() for name in ("gram", "class_sums"))
        average = self.orthonormal.averaged(total["gram"] / n_rows)
        found = finite(NonFiniteStepError("the embedding of the batch holds NaN or infinity"), *sums, added["loss"])
        return Proposal(
            loss=own.loss + through_sums,
            value=added["loss"],
            checks=(enough_classes(counts), found, average.check),
            commit=lambda: self.orthonormal.take(average),
        )

    def window_sums(self, total: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the step's Gram, rows and classes."""
        return labeled_window_sums(total)

    def metrics(self, sums: dict[str, Tensor], n_steps: int) -> dict[str, Any]:
        """Return the classes of a step and the rank of the window's outputs."""
        return labeled_metrics(sums, n_steps, torch.float32)

    def shared_state(self) -> dict[str, Tensor]:
        """Return the moving-average factor."""
        return {"the moving-average factor": self.orthonormal.cholesky_factor}

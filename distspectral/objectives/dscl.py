"""Deep Spectral Clustering Learning's objective: the span of a batch's outputs holds the indicators of its classes."""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor

from distspectral.frozen import FrozenModel
from distspectral.models.orthonorm_layer import OrthonormalLayer
from distspectral.objectives.batches import LabeledBatch
from distspectral.objectives.proposal import Proposal, StepRevisedError
from distspectral.spectral.checks import Check
from distspectral.spectral.class_softmax import RIDGE, TEMPERATURE
from distspectral.spectral.dscl import class_counts, class_sums, eigenvalue_cutoff, project, spectral_pseudo_inverse
from distspectral.spectral.rayleigh import gram


class DSCLConfig(FrozenModel):
    """What is learned from labels and how batches are drawn (YAML section ``dscl``)."""

    loss: Literal["projector", "softmax"] = Field(
        "projector",
        description="projector = the paper's; softmax = each row is asked for its class among the class sums of its "
        "batch, in the projector's metric: better for many classes (Omniglot, R@1 .755 for .686 after 300 steps), "
        "worse for six (Fashion-MNIST, .919 for .941)",
    )
    ridge: PositiveFloat = Field(
        RIDGE,
        description="of the metric of softmax, relative to the mean eigenvalue of the rows' second moments; large = "
        "plain cosines. With softmax it takes the place of orthonorm.jitter",
    )
    temperature: PositiveFloat = Field(TEMPERATURE, description="of softmax; low = only the hardest rows count")
    n_components: PositiveInt | None = Field(
        None,
        description="width of the embedding, fewer than a batch has rows; null = as many as classes in a batch, as in "
        "the paper, and at most half as many as rows",
    )
    rows_per_class: int = Field(
        8, ge=2, description="rows of each class in a batch; train.batch_size over this is its number of classes"
    )
    train_classes: PositiveInt | Literal["half", "all"] = Field(
        "half", description="classes learned from, the first in sorted order; the others are unseen and evaluated"
    )
    whiten: bool = Field(
        False,
        description="embed by outputs that the layer orthonormalised over training, the test-time step without test "
        "rows; better after short training, no longer after enough",
    )


class DSCLObjective:
    """Sums, surrogate and moving average of the projector loss.

    The columns of a step's outputs are presumed to be independent until a step shows that they may not be, and again
    once they are beyond doubt. That decides what a step costs (host reads, eigenvectors), never its result.

    Args:
        orthonormal: the layer whose moving average each step updates.
        dtype: of the network's outputs; decides which directions of a batch are rounding.
    """

    unit = "rows"
    watched = "loss"
    bears_rounding = False

    def __init__(self, orthonormal: OrthonormalLayer, dtype: torch.dtype = torch.float32) -> None:
        self.orthonormal = orthonormal
        self.dtype = dtype
        self.presume_independent = True

    def local_sums(self, outputs: Tensor, batch: LabeledBatch) -> dict[str, Tensor]:
        """Return this rank's shares of S (E, E), B (C, E) and n_c (C,), float64; gradient flows to ``outputs``."""
        ones = torch.ones(len(outputs), dtype=torch.float64, device=outputs.device)
        return {
            "gram": gram(outputs, ones),
            "class_sums": class_sums(outputs, batch.classes, batch.n_classes),
            "class_counts": class_counts(batch.classes, batch.n_classes),
        }

    def propose(self, local: dict[str, Tensor], total: dict[str, Tensor]) -> Proposal:
        """Return this rank's surrogate, the loss l, and the moving average with the mean of the step's rows.

        Args:
            local: what :meth:`local_sums` returned.
            total: the same summed over ranks.

        Raises:
            NonFiniteStepError, TooFewClassesError: what the checks would find, where independence is not presumed.
        """
        sums = total["gram"], total["class_sums"], total["class_counts"]
        projection = project(*sums, self.dtype, presume_independent=self.presume_independent)
        checks = projection.checks
        if self.presume_independent:
            checks += (Check(~projection.is_certain, self._doubt),)
        else:
            self.presume_independent = bool(projection.is_certain)
        average = self.orthonormal.averaged(total["gram"] / total["class_counts"].sum())
        return Proposal(
            loss=projection.surrogate(local["gram"], local["class_sums"]),
            value=projection.value,
            checks=(*checks, average.check),
            commit=lambda: self.orthonormal.take(average),
        )

    def _doubt(self, _: int) -> StepRevisedError:
        self.presume_independent = False
        return StepRevisedError()

    def window_sums(self, total: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the step's Gram, rows and classes."""
        return labeled_window_sums(total)

    def metrics(self, sums: dict[str, Tensor], n_steps: int) -> dict[str, Any]:
        """Return the classes of a step, of which the loss is a part, and the rank of the window's outputs."""
        return labeled_metrics(sums, n_steps, self.dtype)

    def shared_state(self) -> dict[str, Tensor]:
        """Return the moving-average factor."""
        return {"the moving-average factor": self.orthonormal.cholesky_factor}


def labeled_window_sums(total: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return what a window adds up of a step's sums: its Gram, rows and classes."""
    counts = total["class_counts"]
    return {"gram": total["gram"], "n_rows": counts.sum(), "n_classes": (counts > 0).sum()}


def labeled_metrics(sums: dict[str, Tensor], n_steps: int, dtype: torch.dtype) -> dict[str, Any]:
    """Return the classes of a step and the rank of the window's outputs, which are of ``dtype``."""
    cutoff = eigenvalue_cutoff(sums["n_rows"], len(sums["gram"]), dtype)
    _, rank = spectral_pseudo_inverse(sums["gram"], cutoff)
    return {"classes_per_step": float(sums["n_classes"]) / n_steps, "rank": int(rank)}

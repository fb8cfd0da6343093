"""SpectralNet's objective: the Dirichlet energy of orthonormal functions over edges of the global graph."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from distspectral.errors import NonFiniteStepError
from distspectral.frozen import FrozenModel
from distspectral.models.orthonorm_layer import OrthonormalLayer
from distspectral.objectives.batches import EdgeBatch
from distspectral.objectives.proposal import Proposal
from distspectral.spectral.checks import Check, finite
from distspectral.spectral.orthonormalize import checked_cholesky, cholesky_factor
from distspectral.spectral.rayleigh import Laplacian, dirichlet_energy, gram, linearize, whitened_energy

HIDDEN = 2.0
"""What a batch may hide of the log-determinant: see :meth:`SpectralObjective.batch_growth`.

When the cool-down begins, batches of 1,024 edges hide .7 of USPS and 1.8 of digits, whose functions they learn well.
They hide 2.7 of worm neurons, 4.7 of sentence embeddings and 14 of tf-idf text. There a cool-down with two, four and
four times as many edges takes the mean sin^2 of as many functions as clusters from .0054 to .0016, from .090 to .035
and from .041 to .012."""


class SpectralConfig(FrozenModel):
    """Which eigenfunctions are sought and how (YAML section ``spectral``)."""

    n_components: PositiveInt | None = Field(
        None,
        description="eigenfunctions kept, the constant one included, which alone tells nothing apart; null = chosen "
        "from cluster.n_clusters",
    )
    oversampling: int | None = Field(
        None, ge=0, description="functions trained beyond those kept; null = half as many again, at least 6"
    )
    laplacian: Laplacian = Field(
        "random_walk", description="unnormalized weighs every row alike, random_walk by its degree"
    )
    objective: Literal["trace", "logdet"] = Field("logdet", description="sum of eigenvalues, or of their logarithms")
    epsilon: float = Field(1e-3, gt=0, description="eigenvalues far below it no longer count in logdet")

    def n_functions(self, n_components: int) -> int:
        """Return the number of functions to train for ``n_components`` kept ones."""
        extra = max(6, math.ceil(n_components / 2)) if self.oversampling is None else self.oversampling
        return max(n_components + extra, 2)


def default_n_components(n_clusters: int | Literal["auto"]) -> int:
    """Return how many eigenfunctions to keep for so many clusters, the constant one included.

    More than there are clusters: the function that separates the last cluster need not be the last one. With 30, the
    true number of six sets of images was the first or second candidate five times, with 20 four times.
    """
    return 30 if n_clusters == "auto" else n_clusters + max(3, math.ceil(n_clusters / 2))


class SpectralObjective:
    """Sums, surrogate and moving average of the spectral objective.

    Args:
        config: objective and its epsilon.
        orthonormal: the layer whose moving average each step updates.
        n_kept: lowest Ritz values that are summed in ``ritz_sum``; default all.
    """

    unit = "edges"
    watched = "ritz_sum"
    bears_rounding = True

    def __init__(self, config: SpectralConfig, orthonormal: OrthonormalLayer, n_kept: int | None = None) -> None:
        self.config = config
        self.orthonormal = orthonormal
        self.n_kept = n_kept

    def local_sums(self, outputs: Tensor, batch: EdgeBatch) -> dict[str, Tensor]:
        """Return this rank's shares of energy and Gram, (E, E) float64 each; gradient flows to ``outputs``."""
        functions = outputs.double()
        return {
            "energy": dirichlet_energy(functions, batch.heads, batch.tails, batch.weights),
            "gram": gram(functions, batch.mass),
        }

    def propose(self, local: dict[str, Tensor], total: dict[str, Tensor]) -> Proposal:
        """Return this rank's surrogate, the objective's value, and the moving average with the step's global Gram.

        Its checks: the sums are finite (NonFiniteStepError), the global Gram and the average can be factored
        (RankDeficientError).

        Args:
            local: what :meth:`local_sums` returned.
            total: the same summed over ranks.
        """
        energy, gram = total["energy"], total["gram"]
        layer = self.orthonormal
        factor, has_factor = checked_cholesky(gram, jitter=layer.config.jitter)
        if layer.config.train_factor == "ema":
            is_first = layer.n_updates == 0
            factor = torch.where(is_first, factor, layer.cholesky_factor)
            has_factor = Check(has_factor.code * is_first, has_factor.error)
        linear = linearize(energy, factor, objective=self.config.objective, epsilon=self.config.epsilon)
        average = layer.averaged(gram)
        is_finite = finite(NonFiniteStepError("the step's energy or Gram holds NaN or infinity"), energy, gram)
        return Proposal(
            loss=linear.surrogate(local["energy"], local["gram"]),
            value=linear.value,
            checks=(is_finite, has_factor, average.check),
            commit=lambda: layer.take(average),
        )

    def batch_growth(self, totals: Sequence[dict[str, Tensor]]) -> float:
        """Return how many times larger batches should be, by the global sums of several under the same weights.

        Energy that few edges carry is missed by many a batch, which makes the functions look smoother than the graph
        does, and training goes where that pays. The log-determinant of all batches together less the mean of each
        alone is what a batch hides. It falls in proportion to the batch's size.
        """
        pooled = {name: torch.stack([total[name] for total in totals]).sum(0) for name in totals[0]}
        alone = torch.stack([self._log_determinant(total) for total in totals]).mean()
        hidden = float(self._log_determinant(pooled) - alone)
        return hidden / HIDDEN if math.isfinite(hidden) else math.inf

    def _log_determinant(self, total: dict[str, Tensor]) -> Tensor:
        factor, _ = checked_cholesky(total["gram"], jitter=self.orthonormal.config.jitter)
        return linearize(total["energy"], factor, objective="logdet", epsilon=self.config.epsilon).value

    def window_sums(self, total: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the step's energy and Gram."""
        return total

    def metrics(self, sums: dict[str, Tensor], n_steps: int) -> dict[str, Any]:
        """Return the Ritz values of a window's mean energy and Gram, ascending, and the sum of those kept."""
        quotient = whitened_energy(sums["energy"], cholesky_factor(sums["gram"]))
        values = torch.linalg.eigvalsh(quotient).clamp(min=0).tolist()
        return {"ritz_values": values, "ritz_sum": sum(values[: self.n_kept])}

    def shared_state(self) -> dict[str, Tensor]:
        """Return the moving-average factor."""
        return {"the moving-average factor": self.orthonormal.cholesky_factor}

"""SpectralNet's objective: the Dirichlet energy of orthonormal functions over edges of the global graph."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, PositiveInt
from torch import Tensor

from distspectral.errors import NonFiniteStepError
from distspectral.models.orthonorm_layer import OrthonormalLayer
from distspectral.objectives.batches import EdgeBatch
from distspectral.spectral.orthonormalize import cholesky_factor
from distspectral.spectral.rayleigh import dirichlet_energy, gram, linearize, whitened_energy


class SpectralConfig(BaseModel):
    """Which eigenfunctions are sought and how (YAML section ``spectral``)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    n_components: PositiveInt | None = Field(
        None, description="eigenfunctions kept, the constant one included; null = chosen from cluster.n_clusters"
    )
    oversampling: int | None = Field(
        None, ge=0, description="functions trained beyond those kept; null = half as many again, at least 6"
    )
    laplacian: Literal["random_walk", "unnormalized"] = Field(
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

    More than there are clusters: the function that separates the last cluster need not be the last one.
    """
    return 20 if n_clusters == "auto" else n_clusters + max(3, math.ceil(n_clusters / 2))


class SpectralObjective:
    """Sums, surrogate and moving average of the spectral objective.

    Args:
        config: objective and its epsilon.
        orthonormal: the layer whose moving average each step updates.
        n_kept: lowest Ritz values that are summed in ``ritz_sum``; default all.
    """

    unit = "edges"
    watched = "ritz_sum"

    def __init__(self, config: SpectralConfig, orthonormal: OrthonormalLayer, n_kept: int | None = None) -> None:
        self.config = config
        self.orthonormal = orthonormal
        self.n_kept = n_kept

    def local_sums(self, outputs: Tensor, batch: EdgeBatch) -> dict[str, Tensor]:
        """Return this rank's shares of energy and Gram, (E, E) float64 each; gradient flows to ``outputs``."""
        return {
            "energy": dirichlet_energy(outputs, batch.heads, batch.tails, batch.weights),
            "gram": gram(outputs, batch.mass),
        }

    def surrogate(self, local: dict[str, Tensor], total: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return this rank's surrogate, to be differentiated, and the objective's value.

        Args:
            local: what :meth:`local_sums` returned.
            total: the same summed over ranks.

        Raises:
            NonFiniteStepError: the sums hold NaN or infinity; every rank raises, for all see the same sums.
            RankDeficientError: the global Gram cannot be factored.
        """
        if not all(bool(torch.isfinite(tensor).all()) for tensor in total.values()):
            raise NonFiniteStepError(
                "the step's energy or Gram holds NaN or infinity: lower train.learning_rate, "
                "or check the vectors' range"
            )
        layer = self.orthonormal
        use_average = layer.config.train_factor == "ema" and int(layer.n_updates) > 0
        linear = linearize(
            total["energy"],
            total["gram"],
            objective=self.config.objective,
            epsilon=self.config.epsilon,
            jitter=layer.config.jitter,
            factor=layer.cholesky_factor if use_average else None,
        )
        return linear.surrogate(local["energy"], local["gram"]), linear.value

    def after_step(self, total: dict[str, Tensor]) -> None:
        """Take the step's global Gram into the moving average."""
        self.orthonormal.update(total["gram"])

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

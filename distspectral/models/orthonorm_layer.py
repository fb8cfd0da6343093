"""The orthonormalising output layer: a moving-average Gram and its Cholesky factor, kept as buffers.

Training orthonormalises with the factor of the current global minibatch (see ``spectral.rayleigh``); this layer
is what evaluation, checkpoints and export use. All ranks update it with the same all-reduced Gram, so they hold
it bit for bit.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from distspectral.frozen import FrozenModel
from distspectral.models.networks import Perceptron, SpectralNetwork
from distspectral.spectral.checks import Check, raise_first
from distspectral.spectral.orthonormalize import bias, checked_cholesky, moving_average, whiten


class OrthonormConfig(FrozenModel):
    """How outputs are orthonormalised (YAML section ``orthonorm``)."""

    decay: float = Field(0.99, ge=0, lt=1, description="of the moving-average Gram, per step")
    jitter: float = Field(1e-9, ge=0, description="diagonal loading as a fraction of the mean diagonal")
    train_factor: Literal["batch", "ema"] = Field(
        "batch",
        description="factor used inside the training gradient; `ema` lags the weights and costs accuracy "
        "(mean sin^2 .029 with batch, .57 at decay .99, on digits): widen the batch instead",
    )


@dataclasses.dataclass(frozen=True)
class Average:
    """What the layer's buffers become with one more Gram; taken over once ``check`` holds.

    Attributes:
        gram_average: (E, E) float64, not bias-corrected.
        cholesky_factor: (E, E) float64, lower-triangular.
        n_updates: () int64.
        check: that the bias-corrected average is positive definite after jitter.
    """

    gram_average: Tensor
    cholesky_factor: Tensor
    n_updates: Tensor
    check: Check


class OrthonormalLayer(nn.Module):
    """Whitens functions by the Cholesky factor of their bias-corrected moving-average Gram.

    Args:
        n_functions: E.
        config: decay and jitter.

    Buffers: ``gram_average`` (E, E) float64 not bias-corrected, ``cholesky_factor`` (E, E) float64
    lower-triangular, ``n_updates`` () int64.
    """

    gram_average: Tensor
    cholesky_factor: Tensor
    n_updates: Tensor

    def __init__(self, n_functions: int, config: OrthonormConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("gram_average", torch.zeros(n_functions, n_functions, dtype=torch.float64))
        self.register_buffer("cholesky_factor", torch.eye(n_functions, dtype=torch.float64))
        self.register_buffer("n_updates", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def averaged(self, gram: Tensor) -> Average:
        """Return what one more global minibatch Gram (E, E) makes of the average. Host reads: none."""
        n_updates = self.n_updates + 1
        gram_average = moving_average(self.gram_average, gram, self.config.decay)
        corrected = gram_average / bias(n_updates, self.config.decay)
        factor, check = checked_cholesky(corrected, jitter=self.config.jitter)
        return Average(gram_average, factor, n_updates, check)

    @torch.no_grad()
    def take(self, average: Average) -> None:
        """Take over a result of :meth:`averaged` whose check holds."""
        self.gram_average.copy_(average.gram_average)
        self.cholesky_factor.copy_(average.cholesky_factor)
        self.n_updates.copy_(average.n_updates)

    @torch.no_grad()
    def set_gram(self, gram: Tensor) -> None:
        """Make the average the Gram (E, E) of other functions, after as many updates as before.

        Raises:
            RankDeficientError: not positive definite after jitter.
        """
        factor, check = checked_cholesky(gram, jitter=self.config.jitter)
        raise_first([check])
        self.take(Average(gram * bias(self.n_updates, self.config.decay), factor, self.n_updates, check))

    def forward(self, f: Tensor) -> Tensor:
        """Return the functions (B, E), orthonormal under the averaged Gram. Gradient: flows to ``f``."""
        return whiten(f, self.cholesky_factor)


class OrthonormalModel(nn.Module):
    """A network of E functions followed by the orthonormalising layer; what a checkpoint holds.

    Args:
        network: emits f, (B, E).
        orthonormal: the layer for E functions.
    """

    network: nn.Module
    orthonormal: OrthonormalLayer

    def __init__(self, network: nn.Module, orthonormal: OrthonormalLayer) -> None:
        super().__init__()
        self.network = network
        self.orthonormal = orthonormal

    def forward(self, x: Tensor) -> Tensor:
        """Return orthonormal functions (B, E) at rows ``x`` (B, D)."""
        y: Tensor = self.orthonormal(self.network(x))
        return y


class SpectralModel(OrthonormalModel):
    """The model of eigenfunctions: calibration folds a rotation into its network."""

    network: SpectralNetwork

    @staticmethod
    def network_of_state(state: Mapping[str, Tensor]) -> SpectralNetwork:
        """Return the network alone of a model with this state dict, ready to evaluate."""
        own = "network.perceptron."
        found = {name.removeprefix(own): tensor for name, tensor in state.items() if name.startswith(own)}
        return SpectralNetwork.of(Perceptron.from_state(found)).eval()

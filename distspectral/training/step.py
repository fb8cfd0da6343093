"""One optimisation step, the same on one rank and on many, whatever the objective.

Each rank sums over its own batch, one all-reduce adds the sums, every rank forms the same coefficients and
differentiates its own surrogate; averaging by DistributedDataParallel does the rest.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn, optim
from torch.nn.parallel import DistributedDataParallel

from distspectral.comm import collectives
from distspectral.errors import NonFiniteStepError
from distspectral.objectives.batches import Batch

BatchT = TypeVar("BatchT", bound=Batch)
BatchContraT = TypeVar("BatchContraT", bound=Batch, contravariant=True)


class Objective(Protocol[BatchContraT]):
    """What training minimises and what it tells of its progress; see ``distspectral.objectives``.

    Attributes:
        unit: what a batch is counted in, such as ``edges``.
        watched: the metric of a window whose plateau ends training; positive, lower is better.
    """

    unit: str
    watched: str

    def local_sums(self, outputs: Tensor, batch: BatchContraT) -> dict[str, Tensor]:
        """Return differentiable float64 sums over this rank's batch."""

    def surrogate(self, local: dict[str, Tensor], total: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return the tensor to differentiate and the objective's value."""

    def after_step(self, total: dict[str, Tensor]) -> None:
        """Update state that follows the global sums."""

    def window_sums(self, total: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return what is added up over the steps of a window for :meth:`metrics`."""

    def metrics(self, sums: dict[str, Tensor], n_steps: int) -> dict[str, Any]:
        """Return a window's metrics besides the mean loss, JSON-serialisable."""

    def shared_state(self) -> dict[str, Tensor]:
        """Return the state, by name, that must be bit for bit the same on all ranks."""


def parallelize(network: nn.Module) -> nn.Module:
    """Return the network wrapped for gradient averaging when there are several ranks, itself otherwise.

    Buffers are not broadcast: the synchronised ones are equal by construction, and a broadcast would hide it
    if they were not.
    """
    if collectives.world_size() == 1:
        return network
    with warnings.catch_warnings():
        # torch 2.13 renames the argument; older releases know only this name.
        warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
        return DistributedDataParallel(network, broadcast_buffers=False)


def clip_gradient(parameters: Iterable[nn.Parameter], max_norm: float | None) -> None:
    """Scale the gradient down to ``max_norm`` where it is longer; None leaves it alone.

    Ranks hold the same averaged gradient by now, so they scale it alike.
    """
    if max_norm is not None:
        nn.utils.clip_grad_norm_(parameters, max_norm)


def refuse_bad_gradient(parameters: Iterable[nn.Parameter]) -> None:
    """Refuse a gradient whose length is not finite; averaged over ranks by now, so they refuse alike.

    Raises:
        NonFiniteStepError: just that.
    """
    lengths = [parameter.grad.norm() for parameter in parameters if parameter.grad is not None]
    if lengths and not bool(torch.stack(lengths).sum().isfinite()):
        raise NonFiniteStepError(
            "the step's gradient holds NaN or infinity: lower train.learning_rate, or set train.max_gradient_norm"
        )


def optimization_step(
    network: nn.Module,
    objective: Objective[BatchT],
    batch: BatchT,
    optimizer: optim.Optimizer,
    max_gradient_norm: float | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Take one step and return the objective's value and the global sums it was made of.

    Args:
        network: from :func:`parallelize`.
        objective: sums and surrogate.
        batch: this rank's part of the global batch.
        optimizer: over the network's parameters.
        max_gradient_norm: longer gradients are scaled down to it; None = never.

    Raises:
        NonFiniteStepError, RankDeficientError: on every rank alike, before a weight or the moving average changes.

    Communication: one all-reduce of the sums, and DDP's gradient averaging.
    """
    outputs = network(batch.vectors)
    local = objective.local_sums(outputs, batch)
    total = collectives.all_reduce_sum(local)
    loss, value = objective.surrogate(local, total)
    optimizer.zero_grad(set_to_none=True)
    (loss * collectives.world_size()).backward()  # type: ignore[no-untyped-call]
    refuse_bad_gradient(network.parameters())
    clip_gradient(network.parameters(), max_gradient_norm)
    objective.after_step(total)  # it may still refuse the sums; the weights move when nothing can
    optimizer.step()
    return value, total

"""One optimisation step, the same on one rank and on many, whatever the objective.

Each rank sums over its own batch, one all-reduce adds the sums, every rank forms the same coefficients and
differentiates its own surrogate; averaging by DistributedDataParallel does the rest.
"""

from __future__ import annotations

import warnings
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn, optim
from torch.nn.parallel import DistributedDataParallel

from distspectral.comm import collectives
from distspectral.errors import NonFiniteStepError
from distspectral.objectives.batches import Batch
from distspectral.objectives.proposal import Proposal, StepRevisedError
from distspectral.precision import Factors, multiplied_in, outputs_in
from distspectral.spectral.checks import finite, raise_first

BatchT = TypeVar("BatchT", bound=Batch)
BatchContraT = TypeVar("BatchContraT", bound=Batch, contravariant=True)


class Objective(Protocol[BatchContraT]):
    """What training minimises and what it tells of its progress; see ``distspectral.objectives``.

    Attributes:
        unit: what a batch is counted in, such as ``edges``.
        watched: the metric of a window whose plateau ends training; positive, lower is better.
        bears_rounding: whether factors of the network's products may be rounded: not where the objective tells
            independent columns from rounding, which it takes to be float32's.
    """

    unit: str
    watched: str
    bears_rounding: bool

    def local_sums(self, outputs: Tensor, batch: BatchContraT) -> dict[str, Tensor]:
        """Return differentiable float64 sums over this rank's batch."""

    def propose(self, local: dict[str, Tensor], total: dict[str, Tensor]) -> Proposal:
        """Return what this rank's sums and those of all ranks together make of the step."""

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
        # torch 2.13 warns that the argument has a new name, which 2.4, the oldest supported, does not know.
        warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
        return DistributedDataParallel(network, broadcast_buffers=False)


def unwrapped(network: nn.Module) -> nn.Module:
    """Return the network that :func:`parallelize` was given."""
    plain: nn.Module = network.module if isinstance(network, DistributedDataParallel) else network
    return plain


def optimization_step(
    network: nn.Module,
    objective: Objective[BatchT],
    batch: BatchT,
    optimizer: optim.Optimizer,
    max_gradient_norm: float | None = None,
    factors: Factors = "float32",
) -> tuple[Tensor, dict[str, Tensor]]:
    """Take one step and return the objective's value and the global sums it was made of.

    Whether the step can be taken is decided by sums and a gradient that all ranks hold in common, so they decide
    alike, and by one read of the device, when all of it is worked out. What is worked out of sums that are not finite
    is thrown away.

    Args:
        network: from :func:`parallelize`.
        objective: sums and surrogate.
        batch: this rank's part of the global batch.
        optimizer: over the network's parameters.
        max_gradient_norm: longer gradients are scaled down to it; None = never.
        factors: how those of the network's products are rounded.

    Raises:
        NumericalError, TooFewClassesError: a check failed; before a weight or the moving average changes.

    Communication: one all-reduce of the sums, and DDP's gradient averaging; twice where the objective drops a
    presumption. Host reads: one, and what an objective without its presumption needs.
    """
    with multiplied_in(factors):
        try:
            proposal, total = _work_out(network, objective, batch, optimizer, max_gradient_norm, factors)
        except StepRevisedError:
            proposal, total = _work_out(network, objective, batch, optimizer, max_gradient_norm, factors)
    proposal.commit()
    optimizer.step()
    return proposal.value, total


def _work_out(
    network: nn.Module,
    objective: Objective[BatchT],
    batch: BatchT,
    optimizer: optim.Optimizer,
    max_gradient_norm: float | None,
    factors: Factors,
) -> tuple[Proposal, dict[str, Tensor]]:
    """Return the checked proposal and the global sums, the gradient being there."""
    local = objective.local_sums(outputs_in(factors, network, batch.vectors), batch)
    total = collectives.all_reduce_sum(local)
    proposal = objective.propose(local, total)
    optimizer.zero_grad(set_to_none=True)
    (proposal.loss * collectives.world_size()).backward()  # type: ignore[no-untyped-call]
    length = _gradient_norm(network, max_gradient_norm)
    raise_first([*proposal.checks, finite(NonFiniteStepError("the step's gradient holds NaN or infinity"), length)])
    return proposal, total


def _gradient_norm(network: nn.Module, longest: float | None) -> Tensor:
    """Return the length () of the network's gradient, which is scaled down to ``longest``, if there is one."""
    if longest is not None:
        return nn.utils.clip_grad_norm_(network.parameters(), longest)
    gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    length: Tensor = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(one) for one in gradients]))
    return length

"""One optimisation step, the same on one rank and on many.

Each rank sums over its own batch, one all-reduce adds the sums, every rank forms the same coefficients and
differentiates its own surrogate; averaging by DistributedDataParallel does the rest.
"""

from __future__ import annotations

import warnings
from typing import Protocol

from torch import Tensor, nn, optim
from torch.nn.parallel import DistributedDataParallel

from distspectral.comm import collectives
from distspectral.objectives.batches import EdgeBatch


class Objective(Protocol):
    """What a step minimises; see ``distspectral.objectives``."""

    def local_sums(self, outputs: Tensor, batch: EdgeBatch) -> dict[str, Tensor]:
        """Return differentiable float64 sums over this rank's batch."""

    def surrogate(self, local: dict[str, Tensor], total: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return the tensor to differentiate and the objective's value."""

    def after_step(self, total: dict[str, Tensor]) -> None:
        """Update state that follows the global sums."""


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


def optimization_step(
    network: nn.Module, objective: Objective, batch: EdgeBatch, optimizer: optim.Optimizer
) -> tuple[Tensor, dict[str, Tensor]]:
    """Take one step and return the objective's value and the global sums it was made of.

    Args:
        network: from :func:`parallelize`.
        objective: sums and surrogate.
        batch: this rank's part of the global batch.
        optimizer: over the network's parameters.

    Raises:
        NonFiniteStepError, RankDeficientError: on every rank alike, before any weight moves.

    Communication: one all-reduce of the sums, and DDP's gradient averaging.
    """
    outputs = network(batch.vectors)
    local = objective.local_sums(outputs, batch)
    total = collectives.all_reduce_sum(local)
    loss, value = objective.surrogate(local, total)
    optimizer.zero_grad(set_to_none=True)
    (loss * collectives.world_size()).backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    objective.after_step(total)
    return value, total

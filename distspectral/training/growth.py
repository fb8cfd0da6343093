"""Larger batches for the second part of a training, where small ones hide too much of the objective.

Only an objective that is no sum over a batch's items can be hidden, so only some judge their batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from distspectral.comm import collectives
from distspectral.precision import Factors, multiplied_in, outputs_in
from distspectral.training.step import Objective

N_JUDGED = 16
"""Batches by which their size is judged. It takes a hundredth of the time of the shortest training."""


@runtime_checkable
class JudgesBatches(Protocol):
    """An objective that knows when batches are too small."""

    def batch_growth(self, totals: Sequence[dict[str, Tensor]]) -> float:
        """Return how many times larger batches should be, by the global sums of some under the same weights."""


@runtime_checkable
class GrowingSampler(Protocol):
    """A sampler whose batches can be larger.

    Attributes:
        growth: how many times as large.
    """

    growth: int

    def batch(self, step: int) -> Any:
        """Return the batch of ``step``."""


def batch_growth(
    network: nn.Module, objective: Objective[Any], sampler: object, first: int, most: int, factors: Factors
) -> int:
    """Return how many times larger the batches of ``sampler`` should be: a power of 2, the same on all ranks.

    Args:
        network: as it stands; nothing is learned.
        objective: 1 if it does not judge its batches.
        sampler: 1 if its batches do not grow.
        first: number of the first of the steps whose batches are judged.
        most: at most.
        factors: how those of the network's products are rounded.

    Communication: one all-reduce for each batch judged.
    """
    if most == 1 or not (isinstance(objective, JudgesBatches) and isinstance(sampler, GrowingSampler)):
        return 1
    device, totals = next(network.parameters()).device, []
    with torch.no_grad(), multiplied_in(factors):
        for step in range(first, first + N_JUDGED):
            batch = sampler.batch(step).to(device)
            outputs = outputs_in(factors, network, batch.vectors)
            totals.append(collectives.all_reduce_sum(objective.local_sums(outputs, batch)))
        wanted, growth = objective.batch_growth(totals), 1
    while growth < wanted and 2 * growth <= most:
        growth *= 2
    return growth

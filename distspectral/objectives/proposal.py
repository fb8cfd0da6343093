"""A step worked out and not yet taken: what to differentiate, what must hold, what changes beside the weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from torch import Tensor

from distspectral.spectral.checks import Check


class StepRevisedError(Exception):
    """A presumption of the step does not hold; the objective has dropped it, so the same step can be tried again."""


@dataclasses.dataclass(frozen=True)
class Proposal:
    """What an objective makes of the sums of one step, without a host read.

    Attributes:
        loss: () float64, this rank's part, to be differentiated: the gradients of all ranks add up to the objective's.
        value: () float64, the objective, detached.
        checks: what must hold for the step to be taken, by order of importance.
        commit: brings state that follows the sums up to date; called when all checks hold, before the weights move.
    """

    loss: Tensor
    value: Tensor
    checks: tuple[Check, ...]
    commit: Callable[[], None] = lambda: None

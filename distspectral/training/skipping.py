"""Steps that cannot be taken: skipped and counted, and the end of training where they do not cease.

All ranks meet the same error in the same step, for it follows from sums and gradients that they hold in common; so
they skip alike without asking each other.
"""

from __future__ import annotations

import logging

from distspectral.comm import collectives
from distspectral.errors import NonFiniteStepError, NumericalError, RankDeficientError
from distspectral.training.config import TrainConfig

SKIPPABLE = (NonFiniteStepError, RankDeficientError)
"""What can be one batch's fault."""

logger = logging.getLogger(__name__)


class SkippedSteps:
    """Counts the steps that were skipped.

    Args:
        config: of the training; ``max_skipped_steps`` in a row end it, and so does a run of nothing else.
        n_steps: budget of the training.
    """

    def __init__(self, config: TrainConfig, n_steps: int) -> None:
        self.section = config.section
        self.limit = min(config.max_skipped_steps, n_steps)
        self.total = 0
        self.in_a_row = 0

    def taken(self) -> None:
        """Note a step that went well."""
        self.in_a_row = 0

    def skip(self, step: int, error: NumericalError) -> None:
        """Note a step that failed.

        Raises:
            NumericalError: of the same class, with what to change, where too many failed in a row.
        """
        self.total += 1
        self.in_a_row += 1
        if collectives.rank() == 0:
            logger.warning("step %d is skipped: %s", step, error)
        if self.in_a_row >= self.limit:
            limit, rate, norm, size = (
                f"{self.section}.{field}"
                for field in ("max_skipped_steps", "learning_rate", "max_gradient_norm", "batch_size")
            )
            remedies = {
                NonFiniteStepError: (f"lower {rate}, set {norm}, or check the vectors' range", rate, norm),
                RankDeficientError: (f"{size} is the size of a batch", size),
            }
            remedy, *named = remedies[type(error)]
            raise type(error)(
                f"training stopped at step {step}: {self.in_a_row} steps in a row could not be taken "
                f"({limit}), {self.total} in all; the last one: {error}; {remedy}",
                [limit, *named],
            ) from error

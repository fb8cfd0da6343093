"""Steps that cannot be taken: skipped and counted, and the end of training where they do not cease.

All ranks meet the same error in the same step, for it follows from sums and gradients that they hold in common; so
they skip alike without asking each other.
"""

from __future__ import annotations

import logging

from distspectral.comm import collectives
from distspectral.errors import NonFiniteStepError, NumericalError, RankDeficientError

SKIPPABLE = (NonFiniteStepError, RankDeficientError)
"""What can be one batch's fault."""

logger = logging.getLogger(__name__)


class SkippedSteps:
    """Counts the steps that were skipped.

    Args:
        limit: so many in a row end training.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.total = 0
        self.in_a_row = 0

    def taken(self) -> None:
        """Note a step that went well."""
        self.in_a_row = 0

    def skip(self, step: int, error: NumericalError) -> None:
        """Note a step that failed.

        Raises:
            NumericalError: of the same class, where too many failed in a row.
        """
        self.total += 1
        self.in_a_row += 1
        if collectives.rank() == 0:
            logger.warning("step %d is skipped: %s", step, error)
        if self.in_a_row >= self.limit:
            raise type(error)(
                f"training stopped at step {step}: {self.in_a_row} steps in a row could not be taken "
                f"(train.max_skipped_steps), {self.total} in all; the last one: {error}"
            ) from error

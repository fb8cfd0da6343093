"""When the learning rate falls and when training ends: warm up, hold until a plateau, cool down, stop.

The objective's watched metric of each window decides; all ranks see the same sums, so they decide alike.
"""

from __future__ import annotations

import math
from typing import Any


class PlateauSchedule:
    """Learning-rate factor by step: linear warm-up, 1 until a plateau or the budget's end, cosine to 0.

    Args:
        max_steps: budget of steps, cool-down included.
        warmup_steps: steps of linear warm-up.
        cooldown: share of the run, whether full or cut short, spent cooling down.
        patience: windows in a row without improvement that make a plateau; 0 never stops early.
        tolerance: relative improvement since the last one that counts, so slow progress adds up.
    """

    def __init__(self, max_steps: int, *, warmup_steps: int, cooldown: float, patience: int, tolerance: float) -> None:
        self.max_steps, self.warmup_steps = max_steps, max(warmup_steps, 1)
        self.cooldown = cooldown
        self.cooldown_steps = max(round(max_steps * cooldown), 1)
        self.patience, self.tolerance = patience, tolerance
        self.cooldown_start = max_steps - self.cooldown_steps
        self.best = math.inf
        self.n_stale = 0
        self.plateaued = False

    @property
    def last_step(self) -> int:
        """The number of steps after which training is over."""
        return self.cooldown_start + self.cooldown_steps

    def ended_because(self, watched: str) -> str:
        """Complete the sentence 'training stopped because ...'; ``watched`` names the metric."""
        return f"{watched} reached a plateau" if self.plateaued else "max_steps was reached"

    def factor(self, step: int) -> float:
        """Return the learning-rate factor of ``step``, counted from 0."""
        warm = min((step + 1) / self.warmup_steps, 1.0)
        progress = (step - self.cooldown_start) / self.cooldown_steps
        return warm * (0.5 + 0.5 * math.cos(math.pi * min(max(progress, 0.0), 1.0)))

    def observe(self, step: int, watched: float) -> None:
        """Take one window's watched metric, ending at ``step``; begin the cool-down on a plateau."""
        if step >= self.cooldown_start or self.patience == 0:
            return
        if watched < self.best * (1 - self.tolerance):
            self.best, self.n_stale = watched, 0
        else:
            self.n_stale += 1
        if self.n_stale >= self.patience:
            of_full_run = self.cooldown / (1 - self.cooldown)
            self.cooldown_steps = min(max(round(step * of_full_run), 1), self.max_steps - step)
            self.cooldown_start, self.plateaued = step, True

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint must hold."""
        return {
            name: getattr(self, name) for name in ("best", "n_stale", "cooldown_start", "cooldown_steps", "plateaued")
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned."""
        for name, value in state.items():
            setattr(self, name, value)

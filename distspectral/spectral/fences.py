"""What is too much among the values of a group, whatever their distribution: Tukey's fences.

Shape letters: B values, G groups.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

FEWEST = 20
"""Values of which quartiles are told; a group of fewer has no fence."""
SPREAD = 1e-4
"""Distance of the quartiles, in the size of the upper one, below which values are equal but for rounding."""


def fences(
    values: NDArray[np.floating[Any]], groups: NDArray[np.integer[Any]], n_groups: int, steps: float
) -> NDArray[np.float64]:
    """Return the upper fence (G,) of each group, Q3 + ``steps`` (Q3 - Q1); infinite where half of the values are equal.

    Args:
        values: (B,).
        groups: (B,) of each value.
        n_groups: G.
        steps: in units of the distance between the quartiles.

    Reference: Tukey, Exploratory Data Analysis, 1977.
    """
    found = np.full(n_groups, np.inf)
    order = np.argsort(groups, kind="stable")
    ends = np.searchsorted(groups[order], np.arange(n_groups + 1))
    for group in range(n_groups):
        own = values[order[ends[group] : ends[group + 1]]]
        if len(own) >= FEWEST:
            lower, upper = np.quantile(own, [0.25, 0.75])
            if upper - lower > SPREAD * abs(upper):
                found[group] = upper + steps * (upper - lower)
    return found

"""Results of several seeds in one: a mean, and how far the seeds lie apart."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np


def over_seeds(results: Iterable[tuple[str, Mapping[str, float]]]) -> dict[str, dict[str, tuple[float, float]]]:
    """Return by name and score the mean and the standard deviation (0 of a single value).

    Args:
        results: the name of what was measured with a seed, and its scores; a seed may lack some.
    """
    values: dict[str, dict[str, list[float]]] = {}
    for name, scores in results:
        for score, value in scores.items():
            values.setdefault(name, {}).setdefault(score, []).append(value)
    return {
        name: {
            score: (float(np.mean(found)), float(np.std(found, ddof=1)) if len(found) > 1 else 0.0)
            for score, found in scores.items()
        }
        for name, scores in values.items()
    }

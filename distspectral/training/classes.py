"""Which classes are learned from and which stay unseen: the first in sorted order, the protocol of metric learning."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from distspectral.errors import ConfigError, TooFewClassesError


def split_classes(labels: NDArray[Any], train_classes: int | Literal["half", "all"]) -> tuple[NDArray[np.int64], Any]:
    """Return each row's class, -1 where it is not learned from, and the last label that is.

    Args:
        labels: (N,) integers or strings.
        train_classes: number of classes to learn from, in sorted order; ``half`` rounds up.

    Returns:
        (N,) int64 in [-1, C), and a label of the same type as a plain Python value.

    Raises:
        TooFewClassesError: there are fewer than two labels.
        ConfigError: more classes are asked for than there are.
    """
    found, classes = np.unique(labels, return_inverse=True)
    if len(found) < 2:
        raise TooFewClassesError(
            f"data.label_column: {len(labels)} rows of 1 class ({str(found[0])!r}); telling classes apart needs "
            "at least 2",
            ["data.label_column"],
        )
    if train_classes == "half":
        train_classes = (len(found) + 1) // 2
    elif train_classes == "all":
        train_classes = len(found)
    if train_classes > len(found):
        raise ConfigError(
            f"dscl.train_classes: is {train_classes}, but there are {len(found)} labels; ask for fewer",
            ["dscl.train_classes"],
        )
    return np.where(classes < train_classes, classes, -1), found[train_classes - 1].item()

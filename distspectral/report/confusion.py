"""The confusion matrix of labels and clusters, as a picture that stands alone.

Shape letters: L classes, C clusters.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from distspectral.plotting import LONGEST_NAME
from distspectral.report.drawing import alone, drawing
from distspectral.text import printable

MAX_NUMBERS = 20
"""Up to this many clusters each field carries its number."""
MAX_NAMES = 60
"""Up to this many classes are named."""


def confusion_matrix(counts: NDArray[np.int64], classes: Sequence[str], clusters: Sequence[int]) -> str:
    """Return an SVG document: a row per class, shaded by the share of its rows in each cluster.

    Args:
        counts: (L, C) rows of a class in a cluster, columns in the order they are shown.
        classes: (L,) names.
        clusters: (C,) numbers of the columns.
    """
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    with drawing("Confusion matrix of labels and clusters", height=1.2 + min(0.42 * len(classes), 9.0)) as result:
        ax = result.figure.subplots()
        ax.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        ax.grid(visible=False)
        if len(classes) <= MAX_NAMES:
            ax.set_yticks(range(len(classes)), [printable(name, LONGEST_NAME) for name in classes], parse_math=False)
        if len(clusters) <= MAX_NAMES:
            ax.set_xticks(range(len(clusters)), [str(number) for number in clusters])
        ax.set_xlabel("cluster")
        ax.set_ylabel("label")
        if len(clusters) <= MAX_NUMBERS and len(classes) <= MAX_NAMES:
            for (row, column), n in np.ndenumerate(counts):
                if n:
                    colour = "white" if shares[row, column] > 0.5 else "black"
                    ax.text(column, row, f"{n:,}", ha="center", va="center", fontsize=7.5, color=colour)
    return alone(result.svg)

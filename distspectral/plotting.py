"""Rows as points in a plane, drawn by matplotlib into axes of the caller's, for notebooks and papers.

Shape letters: N rows, P components.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from distspectral.text import printable

CATEGORIES = (
    "#0072b2",
    "#e69f00",
    "#009e73",
    "#d55e00",
    "#56b4e9",
    "#cc79a7",
    "#882255",
    "#999933",
    "#7f7f7f",
    "#332288",
)
"""Okabe and Ito's colours, then Tol's: told apart with any colour vision; groups beyond the tenth start over."""
MOST_NAMED = 30
"""Up to this many groups carry their name; more names would hide the points."""
LONGEST_NAME = 18
MOST_POINTS = 100_000
"""Of more rows a seeded choice is drawn, which looks the same."""


def draw_rows(
    x: ArrayLike, y: ArrayLike, groups: Sequence[Any] | NDArray[Any], ax: Any = None, *, axes_named: Sequence[str]
) -> Any:
    """Draw rows as points coloured and named by group, and return the axes.

    Args:
        x: (N,) first coordinate.
        y: (N,) second coordinate.
        groups: (N,) what to colour by: cluster numbers, or labels.
        ax: matplotlib axes to draw into; None makes a figure.
        axes_named: what the coordinates are.
    """
    points, of_rows = np.column_stack([np.asarray(x, float), np.asarray(y, float)]), np.asarray(groups)
    if ax is None:
        from matplotlib import pyplot

        ax = pyplot.figure(figsize=(7, 6), layout="constrained").subplots()
    if len(points) > MOST_POINTS:
        chosen = np.random.default_rng(0).choice(len(points), MOST_POINTS, replace=False)
        points, of_rows = points[chosen], of_rows[chosen]
    names, members = np.unique(of_rows, return_inverse=True)
    is_numbered = np.issubdtype(names.dtype, np.integer)  # a cluster keeps its colour where others are missing
    colours = np.array(
        [CATEGORIES[int(name if is_numbered else rank) % len(CATEGORIES)] for rank, name in enumerate(names)]
    )
    size = float(np.clip(40_000 / max(len(points), 1), 3, 30))
    # pixels, not paths: a hundred thousand points as vectors would make a file slow to open
    ax.scatter(points[:, 0], points[:, 1], s=size, c=colours[members], alpha=0.75, linewidths=0, rasterized=True)
    for group in range(len(names) if len(names) <= MOST_NAMED else 0):
        ax.annotate(
            printable(names[group], LONGEST_NAME),
            np.nanmedian(points[members == group], axis=0),
            ha="center",
            va="center",
            fontweight="bold",
            bbox={"boxstyle": "round,pad=0.2", "facecolor": "white", "edgecolor": colours[group], "alpha": 0.85},
            color="black",
            parse_math=False,
        )
    ax.set_xlabel(axes_named[0])
    ax.set_ylabel(axes_named[1])
    return ax


def draw_embedding(embedding: NDArray[Any], groups: Any, ax: Any = None, *, skip: int = 1) -> Any:
    """Draw rows by the first two of their coordinates; see :func:`draw_rows`.

    Args:
        embedding: (N, P).
        groups: (N,).
        ax: axes, or None.
        skip: coordinates passed over; the first eigenfunction is constant.
    """
    last = embedding.shape[1] - 1
    first, second = min(skip, last), min(skip + 1, last)
    names = tuple(f"coordinate {one + 1}" for one in (first, second))
    return draw_rows(embedding[:, first], embedding[:, second], groups, ax, axes_named=names)

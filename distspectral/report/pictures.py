"""Rows that are pictures: whether they are, by their numbers alone, and small grey pictures of some of them.

Shape letters: B rows, D features.
"""

from __future__ import annotations

import base64
import io
import math
import zlib
from typing import NamedTuple

import numpy as np
from matplotlib.image import imsave
from numpy.typing import NDArray

from distspectral.report.data import Pictures
from distspectral.report.packing import deflated
from distspectral.storage.rows.vectors import Vectors

SMALLEST, LARGEST = 5, 32
"""Sides of pictures: those of fewer pixels say nothing, larger ones are averaged down."""
JUDGED_ROWS = 200
MOST_TONES = 256
"""Different values of a picture in eight bits; features of other kinds have more."""
SMOOTH = 0.3
"""Correlation of neighbouring pixels from which rows are pictures; digits of 8 x 8 pixels have .5, photos .9."""
TONES = 16
"""Shades that are kept, which deflate four times as well as 256."""
BLOCK_ROWS = 4096
BUDGET = 1_100_000
"""Bytes of all pictures of rows."""


class Look(NamedTuple):
    """How rows become pictures.

    Attributes:
        side: pixels of the square that a row is.
        low: value of black.
        high: value of white.
    """

    side: int
    low: float
    high: float


def picture_look(vectors: Vectors) -> Look | None:
    """Return how rows become pictures; None where they are none.

    They are if D is a square, values come in at most :data:`MOST_TONES` steps, and neighbouring pixels go together.
    """
    side = math.isqrt(vectors.dim)
    if side * side != vectors.dim or side < SMALLEST:
        return None
    rows = np.unique(np.linspace(0, vectors.n_rows - 1, min(JUDGED_ROWS, vectors.n_rows)).astype(np.int64))
    values = vectors.gather(rows)
    origin = getattr(vectors, "origin", None)
    if origin is not None:
        values = values + origin
    tones = np.unique(values)
    if not 1 < len(tones) <= MOST_TONES:
        return None
    grid = values.reshape(-1, side, side).astype(np.float64)
    pairs = [(grid[:, :, 1:], grid[:, :, :-1]), (grid[:, 1:], grid[:, :-1])]
    if min(np.corrcoef(one.ravel(), other.ravel())[0, 1] for one, other in pairs) < SMOOTH:
        return None
    return Look(side, float(tones[0]), float(tones[-1]))


def pictures(vectors: Vectors, look: Look, rows: NDArray[np.int64], step: int = 1, side: int = LARGEST) -> Pictures:
    """Return pictures of every ``step``-th of some rows, of at most ``side`` pixels a side.

    Args:
        vectors: all rows.
        look: of :func:`picture_look`.
        rows: (B,) row numbers.
        step: 1 for each.
        side: at most.
    """
    shown, factor = rows[::step], math.ceil(look.side / side)
    found = []
    for first in range(0, len(shown), BLOCK_ROWS):
        values = vectors.gather(shown[first : first + BLOCK_ROWS])
        origin = getattr(vectors, "origin", None)
        grid = (values if origin is None else values + origin).reshape(-1, look.side, look.side).astype(np.float64)
        found.append(_tones(_averaged(grid, factor), look))
    whole = np.concatenate(found) if found else np.empty((0, look.side, look.side), np.uint8)
    return Pictures(height=whole.shape[1], width=whole.shape[2], step=step, data=deflated(whole.tobytes()))


def row_pictures(vectors: Vectors, look: Look, rows: NDArray[np.int64], budget: int = BUDGET) -> Pictures | None:
    """Return pictures of as many rows, in as many pixels, as the budget allows; None if it allows none."""
    made = None
    for step, side in ((1, LARGEST), (1, 14), (2, 14), (4, 14), (8, 14), (16, 14), (64, 8)):
        if made is not None:  # by what the last ones took
            pixels = (min(side, made.width) / made.width) ** 2 * made.step / step
            if len(made.data) * pixels > 1.2 * budget:
                continue
        made = pictures(vectors, look, rows, step, side)
        if len(made.data) <= budget:
            return made
    return None


def as_png(vectors: Vectors, look: Look, row: int) -> str:
    """Return the picture of a row as the address of a PNG that is part of the page."""
    made = pictures(vectors, look, np.array([row]))
    tones = np.frombuffer(zlib.decompress(base64.b64decode(made.data)), np.uint8).reshape(made.height, made.width)
    content = io.BytesIO()
    imsave(content, tones, cmap="gray", vmin=0, vmax=255, format="png")
    return f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"


def _averaged(grid: NDArray[np.float64], factor: int) -> NDArray[np.float64]:
    """Return pictures (B, h, w) whose pixels are means of ``factor`` x ``factor`` ones; the last may be of fewer."""
    if factor == 1:
        return grid
    side = grid.shape[1]
    edges = np.arange(0, side, factor)
    sums = np.add.reduceat(np.add.reduceat(grid, edges, axis=1), edges, axis=2)
    widths = np.diff(np.append(edges, side))
    averaged: NDArray[np.float64] = sums / np.outer(widths, widths)
    return averaged


def _tones(grid: NDArray[np.float64], look: Look) -> NDArray[np.uint8]:
    shades: NDArray[np.float64] = np.clip((grid - look.low) / max(look.high - look.low, 1e-30), 0, 1)
    return np.asarray(np.round(shades * (TONES - 1)) * (255 // (TONES - 1)), np.uint8)

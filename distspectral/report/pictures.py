"""Rows that are pictures: whether they are, as told or by their numbers alone, and small pictures of some of them.

Shape letters: B rows, D features; h, w, c a picture's height, width and channels.
"""

from __future__ import annotations

import base64
import io
import math
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

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
BLOCK_VALUES = 1 << 24
"""Of rows read at a time."""
BUDGET = 1_100_000
"""Bytes of all pictures of rows."""


class Look(NamedTuple):
    """How rows become pictures.

    Attributes:
        height: pixels from top to bottom.
        width: pixels from left to right.
        low: value of black.
        high: value of white.
        channels: 1, or 3 of colours.
        channels_first: whether the values of one channel follow one another.
    """

    height: int
    width: int
    low: float
    high: float
    channels: int = 1
    channels_first: bool = False

    def pictures(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """Return rows (B, D) as pictures (B, h, w, c)."""
        if self.channels_first:
            return np.moveaxis(values.reshape(-1, self.channels, self.height, self.width), 1, 3).astype(np.float64)
        return values.reshape(-1, self.height, self.width, self.channels).astype(np.float64)


def picture_look(vectors: Vectors, shape: Sequence[int] | None = None) -> Look | None:
    """Return how rows become pictures; None where they are none.

    Without a shape they are grey squares if D is a square, values come in at most :data:`MOST_TONES` steps, and
    neighbouring pixels go together.

    Args:
        vectors: (N, D).
        shape: (h, w), (h, w, c) or (c, h, w) of each row, with c 1 or 3; with two readings, channels are last.
    """
    side = math.isqrt(vectors.dim)
    if shape is None and (side * side != vectors.dim or side < SMALLEST):
        return None
    rows = np.unique(np.linspace(0, vectors.n_rows - 1, min(JUDGED_ROWS, vectors.n_rows)).astype(np.int64))
    values = _values(vectors, rows)
    if shape is not None:
        first = len(shape) == 3 and shape[2] not in (1, 3)
        height, width, channels = (*shape[1:], shape[0]) if first else (*shape, 1)[:3]
        return Look(height, width, float(values.min()), float(values.max()), channels, first)
    tones = np.unique(values)
    if not 1 < len(tones) <= MOST_TONES:
        return None
    grid = values.reshape(-1, side, side).astype(np.float64)
    pairs = [(grid[:, :, 1:], grid[:, :, :-1]), (grid[:, 1:], grid[:, :-1])]
    if min(np.corrcoef(one.ravel(), other.ravel())[0, 1] for one, other in pairs) < SMOOTH:
        return None
    return Look(side, side, float(tones[0]), float(tones[-1]))


def _values(vectors: Vectors, rows: NDArray[np.int64]) -> NDArray[Any]:
    """Return rows (B, D) as they were before they were moved to their frame's origin."""
    values, origin = vectors.gather(rows), getattr(vectors, "origin", None)
    return values if origin is None else values + origin


def pictures(vectors: Vectors, look: Look, rows: NDArray[np.int64], step: int = 1, side: int = LARGEST) -> Pictures:
    """Return pictures of every ``step``-th of some rows, of at most ``side`` pixels a side.

    Args:
        vectors: all rows.
        look: of :func:`picture_look`.
        rows: (B,) row numbers.
        step: 1 for each.
        side: at most.
    """
    shown, factor = rows[::step], math.ceil(max(look.height, look.width) / side)
    found = [np.empty((0, -(-look.height // factor), -(-look.width // factor), look.channels), np.uint8)]
    block_rows = max(1, BLOCK_VALUES // vectors.dim)
    for first in range(0, len(shown), block_rows):
        grid = look.pictures(_values(vectors, shown[first : first + block_rows]))
        found.append(_tones(_averaged(grid, factor), look))
    whole = np.concatenate(found)
    height, width, channels = whole.shape[1:]
    return Pictures(height=height, width=width, channels=channels, step=step, data=deflated(whole.tobytes()))


def row_pictures(vectors: Vectors, look: Look, rows: NDArray[np.int64], budget: int = BUDGET) -> Pictures | None:
    """Return pictures of as many rows, in as many pixels, as the budget allows; None if it allows none."""
    made = None
    for step, side in ((1, LARGEST), (1, 14), (2, 14), (4, 14), (8, 14), (16, 14), (64, 8)):
        if made is not None:  # by what the last ones took
            largest = max(made.height, made.width)
            pixels = (min(side, largest) / largest) ** 2 * made.step / step
            if len(made.data) * pixels > 1.2 * budget:
                continue
        made = pictures(vectors, look, rows, step, side)
        if len(made.data) <= budget:
            return made
    return None


def as_png(vectors: Vectors, look: Look, row: int) -> str:
    """Return the picture of a row as the address of a PNG that is part of the page."""
    made = pictures(vectors, look, np.array([row]))
    tones = np.frombuffer(zlib.decompress(base64.b64decode(made.data)), np.uint8)
    content = io.BytesIO()
    coloured = np.broadcast_to(tones.reshape(made.height, made.width, made.channels), (made.height, made.width, 3))
    imsave(content, np.ascontiguousarray(coloured), format="png")
    return f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"


def _averaged(grid: NDArray[np.float64], factor: int) -> NDArray[np.float64]:
    """Return pictures (B, h, w, c) whose pixels are means of ``factor`` x ``factor``; the last may be of fewer."""
    for axis in (1, 2) if factor > 1 else ():
        edges = np.arange(0, grid.shape[axis], factor)
        widths = np.diff(np.append(edges, grid.shape[axis]))
        sums = np.add.reduceat(grid, edges, axis=axis)
        grid = sums / np.expand_dims(widths, [one for one in range(4) if one != axis])
    return grid


def _tones(grid: NDArray[np.float64], look: Look) -> NDArray[np.uint8]:
    shades: NDArray[np.float64] = np.clip((grid - look.low) / max(look.high - look.low, 1e-30), 0, 1)
    return np.asarray(np.round(shades * (TONES - 1)) * (255 // (TONES - 1)), np.uint8)

"""The square that holds all places of a map, its cells in Morton order, and a number for each row as if at random.

Shape letters: B rows of a block.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

AXIS_BITS = 16
"""Of a place along each axis."""
_SPREAD = ((8, 0x00FF00FF), (4, 0x0F0F0F0F), (2, 0x33333333), (1, 0x55555555))


@dataclasses.dataclass(frozen=True)
class Plane:
    """A square around all places: left and lower edge, and the length of a side."""

    x: float
    y: float
    side: float

    @classmethod
    def around(cls, low: NDArray[np.float64], high: NDArray[np.float64]) -> Plane:
        """Return the square around a box; the box lies in its middle.

        Args:
            low: (2,) least x and y.
            high: (2,) largest.
        """
        side = max(float((high - low).max()) * (1 + 2**-20), float(np.finfo(np.float32).tiny))
        left, lower = ((low + high - side) / 2).tolist()
        return cls(left, lower, side)

    def morton(self, x: NDArray[np.float32], y: NDArray[np.float32]) -> NDArray[np.uint32]:
        """Return the place (B,) of rows along a curve that ends with a quarter before it begins the next.

        The two highest bits name the quarter, the next two the quarter of that, and so on, y before x.
        """
        across, up = (
            np.clip((values.astype(np.float64) - least) / self.side * 2**AXIS_BITS, 0, 2**AXIS_BITS - 1).astype("u4")
            for values, least in ((x, self.x), (y, self.y))
        )
        return _spread(across) | _spread(up) << np.uint32(1)


def cell_of(morton: NDArray[np.uint32], bits: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return column and row (B,), from the left and from below, of the cells of a grid of ``2^bits`` by ``2^bits``.

    Args:
        morton: (B,) of :meth:`Plane.morton`.
        bits: at most :data:`AXIS_BITS`.
    """
    shift = np.uint32(AXIS_BITS - bits)
    across, up = (_gathered(one) >> shift for one in (morton, morton >> np.uint32(1)))
    return across.astype(np.int32), up.astype(np.int32)


def row_hash(first: int, n_rows: int) -> NDArray[np.uint64]:
    """Return 64 mixed bits (B,) for each of consecutive rows of the run: whatever the shards, and whatever the ids.

    Args:
        first: number of the first of them in the run.
        n_rows: B.

    Reference: Steele, Lea, Flood, Fast splittable pseudorandom number generators, 2014 (splitmix64).
    """
    mixed = np.arange(first + 1, first + 1 + n_rows, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return mixed ^ (mixed >> np.uint64(31))


def _spread(numbers: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Return numbers of 16 bits with a zero before each bit."""
    for shift, mask in _SPREAD:
        numbers = (numbers | numbers << np.uint32(shift)) & np.uint32(mask)
    return numbers


def _gathered(numbers: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Return every second bit: what :func:`_spread` was given."""
    numbers = numbers & np.uint32(_SPREAD[-1][1])
    for (shift, _), mask in zip(_SPREAD[::-1], (*(mask for _, mask in _SPREAD[-2::-1]), 0x0000FFFF), strict=True):
        numbers = (numbers | numbers >> np.uint32(shift)) & np.uint32(mask)
    return numbers

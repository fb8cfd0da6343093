"""Where rows lie and how large they are: what float32 would lose of that is taken away in float64, before the cast.

A column of Unix seconds lies at 1.7e9, where float32 counts in steps of 128; squares of 1e-25 vanish, those of 1e20 are
infinite. So such rows are moved to an origin and divided by a power of two, which rounds nothing. Networks, searches
and artifacts have rows as the frame makes them; whoever takes raw rows puts the frame before. Rows that lose nothing,
which are nearly all, keep their numbers bit for bit.

Shape letters: N rows, D features, B rows of a block.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

REACH = 2.0**24
"""How much farther from the median than rows usually are a row may be. Beyond, float32 cannot tell the others apart
beside it: the mean of all, and with it each of them, is rounded by more than they differ."""
USUAL = 0.99
"""Share of the rows that decide how far rows usually are: a few far ones do not."""
SPREAD = 2.0**10
"""Times how far rows usually are from the median, the root of their variance at most. Networks are given rows divided
by that root; beyond, a few far rows leave the others too near one another to learn from (measured: from 2^11 on)."""
NOISE = 2.0**-49
"""Differences so small beside the values are float64's own rounding."""
WHOLE = 2.0**53
"""Integers from here on are not all numbers of float64, so they are subtracted as integers."""
SEEN_VALUES = 1 << 22
"""Of rows in memory, most values that are looked at."""

StoredType = Literal["float32", "float16"]


class _Range(NamedTuple):
    """What a type holds without loss worth mentioning.

    Attributes:
        offset: most distance of a feature's median from zero, in units of how far rows usually are from the median.
        least: that distance, at least; squares of a millionth of it must not vanish.
        most: likewise at most.
        largest: value.
    """

    offset: float
    least: float
    most: float
    largest: float


RANGES: dict[StoredType, _Range] = {
    "float32": _Range(2.0**6, 2.0**-24, 2.0**24, float(np.finfo(np.float32).max)),
    "float16": _Range(2.0**3, 2.0**-6, 2.0**8, float(np.finfo(np.float16).max)),
}


@dataclasses.dataclass(frozen=True, eq=False)
class Frame:
    """Rows x become (factor x - origin) / 2^exponent, in float64, then float32. Picklable.

    Attributes:
        factor: for every value, ``data.scale`` of a run.
        origin: (D,) float64, zero for features that lose nothing; None where all are such.
        exponent: of the power of two.
        limit: largest value of a framed row, by magnitude.
        dtype: that framed rows are stored in.
        usual: how far framed rows usually are from the median, 0 where that was not looked at.
    """

    factor: float = 1.0
    origin: NDArray[np.float64] | None = None
    exponent: int = 0
    limit: float = RANGES["float32"].largest
    dtype: StoredType = "float32"
    usual: float = 0.0

    @classmethod
    def of(cls, rows: Any, factor: float = 1.0, dtype: StoredType = "float32") -> Self:
        """Return the frame of rows, by their medians: a few far rows change nothing.

        Args:
            rows: (N, D) finite numbers, an array or a SciPy matrix, all or a sample; sparse ones keep their zeros, so
                they are scaled only.
            factor: for every value.
            dtype: that framed rows are stored in.
        """
        n_seen = max(SEEN_VALUES // rows.shape[1], 1)
        if rows.shape[0] > n_seen:
            rows = rows[np.sort(np.random.default_rng(0).choice(rows.shape[0], n_seen, replace=False))]
        if sparse.issparse(rows):
            centre = np.zeros(rows.shape[1])
            apart = np.asarray(abs(rows.tocsr()).max(axis=1).todense(), np.float64).reshape(-1) * factor
        else:
            centre, apart = _spread(np.asarray(rows), factor)
        usual = float(np.quantile(apart, USUAL, method="lower")) if len(apart) else 0.0
        usual = min(usual or float(apart.max(initial=0)) or float(np.abs(centre).max(initial=0)), 2.0**1022)
        held = RANGES[dtype]
        if usual == 0:
            return cls(factor, limit=held.largest, dtype=dtype)
        power = math.frexp(usual)[1] - 1
        exponent = 0 if held.least <= usual <= held.most else min(max(power, -1022), 1022)
        far = np.abs(centre) > held.offset * usual
        origin = np.where(far, _rounded(centre, 2.0**power), 0) if far.any() else None
        usual *= 2.0**-exponent
        return cls(factor, origin, exponent, min(REACH * usual, held.largest), dtype, usual)

    @property
    def is_plain(self) -> bool:
        """Whether rows are only multiplied by the factor, in float32."""
        return self.origin is None and self.exponent == 0

    @property
    def changes_nothing(self) -> bool:
        """Whether raw rows of float32 are framed ones."""
        return self.is_plain and self.factor == 1.0

    @property
    def input_type(self) -> Literal["float32", "float64"]:
        """The type of raw rows that loses nothing."""
        return "float32" if self.is_plain else "float64"

    @property
    def framed_origin(self) -> NDArray[np.float64] | None:
        """(D,) what framed rows lack of what they were, in their own unit; None where that is nothing."""
        return None if self.origin is None else self.origin * 2.0**-self.exponent

    def framed(self, raw: NDArray[Any]) -> NDArray[np.float32]:
        """Return a (B, D) copy of raw rows in float32; what does not fit becomes infinite."""
        with np.errstate(over="ignore", invalid="ignore"):
            if self.is_plain:
                matrix = np.array(raw, dtype=np.float32, order="C")
                if self.factor != 1.0:
                    matrix *= np.float32(self.factor)
                return matrix
            return (_moved(raw, self.factor, self.origin) * 2.0**-self.exponent).astype(np.float32)

    def raw(self, rows: NDArray[np.float32]) -> NDArray[Any]:
        """Return (B, D) rows as they were before the frame, in :attr:`input_type`."""
        if self.is_plain:
            return rows / np.float32(self.factor)
        moved = rows * np.float64(2.0) ** self.exponent
        return (moved if self.origin is None else moved + self.origin) / self.factor

    def holds(self, rows: NDArray[np.float32]) -> bool:
        """Whether all values of framed rows are numbers within the limit."""
        return not rows.size or bool(rows.max() <= self.limit and rows.min() >= -self.limit)

    def misfits(self, rows: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Return which values of framed rows (B, D) are not."""
        mask: NDArray[np.bool_] = ~(np.abs(rows) <= np.float32(self.limit))
        return mask

    def first_misfit(self, raw: NDArray[Any], rows: NDArray[np.float32]) -> tuple[int, int, str]:
        """Return row and feature of the first value that does not fit, and what is wrong with it.

        Args:
            raw: (B, D).
            rows: (B, D), the same framed.
        """
        row, feature = divmod(int(self.misfits(rows).argmax()), rows.shape[1])
        found = raw[row, feature]
        if not np.isfinite(found):
            return row, feature, f"found {found}, expected a finite number"
        if self.limit == RANGES["float32"].largest:
            return row, feature, f"{found:g} is beyond float32, expected a finite number"
        place = 0.0 if self.origin is None else float(self.origin[feature])
        low, high = ((place + side * self.limit * 2.0**self.exponent) / self.factor for side in (-1, 1))
        remedy = "; set pack.dtype to float32" if self.dtype == "float16" else ""
        return (
            row,
            feature,
            f"{found:g} is beyond {self.dtype} beside the other rows, expected {low:.4g} to {high:.4g}{remedy}",
        )

    def excess(self, scale: float) -> float | None:
        """Return how many times as far as usual the rows are on average, where a few far ones hide the others; or None.

        Args:
            scale: root of the mean variance of framed rows.
        """
        return scale / self.usual if self.usual and scale > SPREAD * self.usual else None

    def properties(self) -> dict[str, Any]:
        """Return what :meth:`of_properties` takes, JSON-serialisable."""
        origin = None if self.origin is None else self.origin.tolist()
        return dataclasses.asdict(self) | {"origin": origin}

    @classmethod
    def of_properties(cls, properties: dict[str, Any]) -> Self:
        """Return the frame whose :meth:`properties` these are."""
        origin = properties["origin"]
        return cls(**properties | {"origin": None if origin is None else np.asarray(origin, np.float64)})


def _moved(raw: NDArray[Any], factor: float, origin: NDArray[np.float64] | None) -> NDArray[np.float64]:
    """Return factor x - origin as a fresh float64 array; large integers are subtracted as such."""
    values = np.array(raw, dtype=np.float64, order="C")
    values *= factor
    if origin is None:
        return values
    values -= origin
    if raw.dtype.kind in "iu" and factor == 1.0 and np.abs(origin).max() >= WHOLE:
        whole = np.array([int(one) % 2**64 for one in origin], np.uint64)  # modulo 2^64, as differences are
        exact = (raw.astype(np.uint64) - whole).view(np.int64)
        values = np.where(np.abs(values) < 2.0**62, exact, values)
    return values


def _spread(rows: NDArray[Any], factor: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the median (D,) of rows, and how far each (N,) is from it in the feature where it is farthest."""
    is_whole = rows.dtype.kind in "iu"
    start = rows[0].astype(np.float64) if is_whole and len(rows) else np.zeros(rows.shape[1])
    with np.errstate(over="ignore", invalid="ignore"):
        values = _moved(rows, factor, start)
        median = np.median(values, axis=0) if len(rows) else start
        centre = median + start
        values -= median
        apart = np.abs(values, out=values)
        if not is_whole:
            apart[apart <= NOISE * np.abs(centre)] = 0
    return centre, np.nan_to_num(apart.max(axis=1, initial=0))


def _rounded(centre: NDArray[np.float64], step: float) -> NDArray[np.float64]:
    """Return multiples of ``step``: an origin that more rows hardly change, and whose subtraction is exact."""
    coarse = np.abs(centre) < step * 2.0**52
    return np.where(coarse, np.round(np.where(coarse, centre, 0) / step) * step, centre)

"""Rows that stand for all: one of each of equally many consecutive rows, at a place drawn by a fixed seed.

Whoever counts knows of any row number whether it is one of them, by arithmetic and one look into a small table, so
tasks count for the same rows without a word between them. Few rows are all counted.

Shape letters: N rows, S sampled rows.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

SAMPLED_ROWS = 1 << 18
"""Rows that facts of a graph are told by, all where there are no more: shares are then known to a thousandth."""
SEED = 20180213


class StratifiedRows:
    """Which rows.

    Args:
        n_rows: N.
        count: S at most.

    Attributes:
        n_rows: N.
        rows: (S,) int64, ascending.
    """

    def __init__(self, n_rows: int, count: int = SAMPLED_ROWS) -> None:
        self.n_rows, count = n_rows, min(count, n_rows)
        bounds = np.arange(count + 1, dtype=np.int64) * n_rows // count
        drawn = np.random.default_rng([SEED, n_rows]).random(count)
        self.rows: NDArray[np.int64] = bounds[:-1] + (drawn * np.diff(bounds)).astype(np.int64)

    def __reduce__(self) -> tuple[functools.partial[StratifiedRows], tuple[()]]:
        return functools.partial(StratifiedRows, self.n_rows, len(self.rows)), ()

    def __len__(self) -> int:
        return len(self.rows)

    def stretch(self, start: int, stop: int) -> slice:
        """Return the places of the sampled rows among ``start`` to ``stop``."""
        first, last = np.searchsorted(self.rows, (start, stop))
        return slice(int(first), int(last))

    def found(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return which of some row numbers (M,) are sampled, and the place of each of these in :attr:`rows`."""
        if len(self.rows) == self.n_rows:
            return np.arange(len(rows)), rows
        places = ((rows + 1) * len(self.rows) - 1) // self.n_rows
        hits = np.flatnonzero(self.rows[places] == rows)
        return hits, places[hits]

"""Different rows at random, in memory that does not grow with the rows that there are.

``Generator.choice`` writes down all rows to draw more than a fiftieth of them.

Shape letters: N rows, n drawn.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

WRITTEN_DOWN = 1 << 20
"""Rows that may be written down."""
SPARSE = 1 / 64
"""Share of the rows up to which ``Generator.choice`` keeps a set of those drawn."""
MORE = 1.05
"""Times as many as are missing are drawn at once."""


def drawn_rows(n_rows: int, count: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """Return ``count`` different rows (n,) of N, ascending, all where there are no more; every set is as likely.

    Args:
        n_rows: N.
        count: wished for.
        generator: draws them.
    """
    count = min(count, n_rows)
    if n_rows <= WRITTEN_DOWN or count <= SPARSE * n_rows:
        return np.sort(generator.choice(n_rows, count, replace=False)).astype(np.int64)
    if count > n_rows // 2:  # then those left out are few, and so many rows are held anyway
        return np.setdiff1d(np.arange(n_rows), drawn_rows(n_rows, n_rows - count, generator), assume_unique=True)
    rows = np.empty(0, np.int64)
    while len(rows) < count:
        more = generator.integers(0, n_rows, int(MORE * (count - len(rows))) + 16)
        rows = np.unique(np.concatenate([rows, more]))
    left_out = generator.choice(len(rows), len(rows) - count, replace=False)
    return np.delete(rows, left_out)

"""How many rows cells have, by a sample: a cell's count is believed as far as it is not noise.

Counts of sampled rows scatter around what cells really hold; the largest of many counts is mostly scatter. Cells
that differ like a gamma distribution, whose mean and variance the counts show, have posterior means between their
count and the mean of all: as near to the count as the cells' true spread outweighs the noise.
Reference: the credibility of Buehlmann, Experience rating and credibility, ASTIN Bulletin 1967.

Shape letters: N rows, S sampled rows, B of them at once, C cells, D features.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distspectral.graph.search.cells import Cells
from distspectral.graph.search.sampling import Rows, n_seen, sampled

BLOCK_BYTES = 1 << 24
"""Of rows that are assigned at once."""


@dataclasses.dataclass(frozen=True)
class CellCounts:
    """What cells hold of all rows.

    Attributes:
        sizes: (C,) rows of each, estimated.
        errors: (C,) standard errors of these.
        copies: cells per row.
        copies_error: standard error of that.
        pairs: sum of squared sizes over N, without the noise's part.
    """

    sizes: NDArray[np.float64]
    errors: NDArray[np.float64]
    copies: float
    copies_error: float
    pairs: float

    @classmethod
    def of(cls, counts: NDArray[np.integer[Any]], squared_copies: float, n_seen: int, n_rows: int) -> CellCounts:
        """Return the estimates.

        Args:
            counts: (C,) sampled rows in each cell.
            squared_copies: sum over sampled rows of the square of the number of their cells.
            n_seen: S.
            n_rows: N.
        """
        share = n_seen / n_rows
        copies, mean = counts.sum() / n_seen, counts.mean()
        noise = mean * (1 - share)
        spread = max(float(counts.var()) - noise, 0.0)
        belief = spread / (spread + noise) if noise else 1.0
        believed = mean + belief * (counts - mean)
        errors = np.sqrt(belief * (1 - share) * believed)
        variance = max(squared_copies / n_seen - copies**2, 0.0) * (1 - share) / max(n_seen - 1, 1)
        met = float((counts * (counts - 1.0)).sum()) / (n_seen * max(n_seen - 1, 1)) * n_rows
        return cls(believed / share, errors / share, float(copies), float(np.sqrt(variance)), met + float(copies))


def count_cells(options: Sequence[Cells], seen: Rows, n_rows: int, seed: int) -> list[CellCounts]:
    """Return what cells hold under each of several overlaps.

    Args:
        options: with the same centroids.
        seen: random rows of N; as many of them are counted as the cells call for.
        n_rows: N.
        seed: of the choice among them.
    """
    if not options:
        return []
    n_cells, dim = options[0].centroids.shape
    rows = sampled(seen.n_rows, n_seen(n_rows, n_cells), seed)
    counts = np.zeros((len(options), n_cells), np.int64)
    squared_copies = np.zeros(len(options))
    looked_at = 1 + max(cells.max_extra for cells in options)
    step = max(1, BLOCK_BYTES // (4 * dim))
    for start in range(0, len(rows), step):
        near, borders = options[0].nearest(seen.gather(rows[start : start + step]), looked_at)
        for index, cells in enumerate(options):
            width = slice(1 + cells.max_extra)
            inside = borders[:, width] <= cells.eps
            counts[index] += np.bincount(near[:, width][inside], minlength=n_cells)
            squared_copies[index] += np.square(inside.sum(axis=1)).sum()
    return [CellCounts.of(*of_one, len(rows), n_rows) for of_one in zip(counts, squared_copies.tolist(), strict=True)]

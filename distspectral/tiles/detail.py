"""At which level of detail each row is shown: from counts of rows by place and cluster alone.

A tile of level l is a cell of the grid of 2^l by 2^l. It shows about as many rows as a picture bears, of those that no
level above shows: of each part of it and each cluster there in proportion to the square root of what is left, so that
crowds do not hide what is rare. What is decided is a share for each stratum; which of its rows are meant follows from a
number for each row. So rows need not be sorted, nor be in memory.

Shape letters: S strata, L levels, G groups of strata, B rows of a block.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distspectral.tiles.plane import AXIS_BITS, cell_of

TILE_ROWS = 4096
"""Rows that a tile shows, about."""
PART_BITS = 5
"""A tile's rows are spread over 2^5 by 2^5 parts of it."""
SHIFTS = 3
"""Of tiles along each axis, over which what they show is averaged."""
ROWS_PER_CELL = 8
"""Of the grid that strata lie on, on average, unless the grid is as fine as it may be."""
LEAST_BITS, MOST_BITS = 5, 10
"""Of that grid along each axis; 2^20 cells with a few clusters each are some hundred megabytes at most."""
FILE_ROWS = 1 << 20
"""Rows of a file, about: they are sorted in memory."""


def grid_bits(n_rows: int) -> int:
    """Return how fine a grid so many rows are counted on."""
    wanted = int(np.ceil(np.log2(max(n_rows / ROWS_PER_CELL, 1)) / 2))
    return min(max(wanted, LEAST_BITS), MOST_BITS)


@dataclasses.dataclass(frozen=True)
class Strata:
    """Rows counted by cell of a grid and cluster.

    Attributes:
        bits: the grid has 2^bits by 2^bits cells.
        n_clusters: C.
        keys: (S,) int64 ascending: number of the cell in Morton order, times C, plus the cluster.
        counts: (S,) rows, at least 1.
    """

    bits: int
    n_clusters: int
    keys: NDArray[np.int64]
    counts: NDArray[np.int64]

    def cells(self) -> NDArray[np.int64]:
        """Return the cell (S,) of each stratum."""
        return self.keys // self.n_clusters


def keys_of(
    morton: NDArray[np.uint32], cluster: NDArray[np.integer[Any]], bits: int, n_clusters: int
) -> NDArray[np.int64]:
    """Return the stratum's key (B,) of each row."""
    return (morton >> np.uint32(2 * (AXIS_BITS - bits))).astype(np.int64) * n_clusters + cluster


@dataclasses.dataclass(frozen=True)
class Detail:
    """Which level, and which file of it, each row belongs to.

    Attributes:
        strata: that were counted.
        bounds: (S, L) float32: the row whose number is below the first is on level 0, and so on; the last is 1.
        edges: of each level, where its files begin but the first: number of the stratum, and in it the share of the
            rows of that level that lie before.
    """

    strata: Strata
    bounds: NDArray[np.float32]
    edges: list[NDArray[np.float64]]

    @property
    def n_levels(self) -> int:
        """L."""
        return int(self.bounds.shape[1])

    @property
    def first_files(self) -> NDArray[np.int64]:
        """Number (L + 1,) of the first file of each level, and of all files."""
        return np.cumsum([0, *(len(edges) + 1 for edges in self.edges)])

    def of_rows(
        self, keys: NDArray[np.int64], numbers: NDArray[np.uint64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return level and file (B,) of rows.

        Args:
            keys: (B,) of :func:`keys_of`, all among the strata's.
            numbers: (B,) of :func:`distspectral.tiles.plane.row_hash`.
        """
        stratum = np.searchsorted(self.strata.keys, keys)
        share = (numbers >> np.uint64(11)).astype(np.float64) * 2.0**-53
        bounds = self.bounds[stratum].astype(np.float64)
        level = np.minimum((share[:, None] >= bounds).sum(axis=1), self.n_levels - 1)
        rows = np.arange(len(keys))
        begin = np.where(level > 0, bounds[rows, level - 1], 0.0)
        inside = (share - begin) / np.maximum(bounds[rows, level] - begin, np.finfo(np.float64).tiny)
        at = stratum + np.clip(inside, 0.0, 1.0 - 2**-20)
        file = np.empty(len(keys), np.int64)
        for one, (edges, first) in enumerate(zip(self.edges, self.first_files, strict=False)):
            mine = level == one
            file[mine] = first + np.searchsorted(edges, at[mine], side="right")
        return level, file


def levels_of_detail(strata: Strata, tile_rows: int, file_rows: int) -> Detail:
    """Return the level of every row, so that a tile shows about ``tile_rows``; the finest level shows all that is left.

    Args:
        strata: all rows.
        tile_rows: of a tile.
        file_rows: of a file; the files of a level hold about as many rows each.
    """
    rest = strata.counts.astype(np.float64)
    taken: list[NDArray[np.float64]] = []
    while rest.any():
        level = len(taken)
        shown = rest if level == strata.bits else _shown(strata, rest, level, tile_rows)
        taken.append(shown)
        rest = rest - shown
    shares = np.stack(taken, axis=1)
    bounds = (np.cumsum(shares, axis=1) / strata.counts[:, None]).astype(np.float32)
    bounds[:, -1] = 1
    return Detail(strata, bounds, [_edges(one, file_rows) for one in taken])


def _shown(strata: Strata, rest: NDArray[np.float64], level: int, tile_rows: int) -> NDArray[np.float64]:
    """Return how many rows (S,) of each stratum a level shows, of those that are left.

    The mean of what tiles of the same size show that are shifted against the level's own: where one that shows all its
    rows lies beside one that cannot, no border is seen between them. Each part is shifted a little otherwise.
    """
    part_bits = min(level + PART_BITS, strata.bits)
    cells, clusters = np.divmod(strata.keys, strata.n_clusters)
    parts = (cells >> 2 * (strata.bits - part_bits)) * strata.n_clusters + clusters
    found, group = np.unique(parts, return_inverse=True)
    left = np.bincount(group, rest).astype(np.float64)
    shares = np.zeros(len(left))
    places = np.stack(cell_of((found // strata.n_clusters << 2 * (AXIS_BITS - part_bits)).astype(np.uint32), part_bits))
    side, generator = 2 ** (part_bits - level), np.random.default_rng(level)
    for shift in np.ndindex(SHIFTS, SHIFTS):
        moves = (np.array(shift)[:, None] + generator.random(places.shape)) / SHIFTS - 0.5
        across, up = np.clip(places + np.floor(moves * side).astype(np.int64), 0, 2**part_bits - 1) // side
        quota = filled(left, np.sqrt(left), up << level | across, tile_rows)
        shares += np.divide(quota, left, out=np.zeros(len(left)), where=left > 0)  # exactly 1 of what is shown in full
    shown: NDArray[np.float64] = rest * (shares / SHIFTS**2)[group]
    return shown


def filled(
    capacities: NDArray[np.float64], weights: NDArray[np.float64], vessel: NDArray[np.int64], budget: float
) -> NDArray[np.float64]:
    """Share a budget among the groups (G,) of each vessel by weight, none getting more than it can take.

    Args:
        capacities: (G,) what each can take.
        weights: (G,) at least 0; 0 where there is no capacity alone.
        vessel: (G,) numbers from 0.
        budget: of each vessel; one that can take no more in all is filled.

    Returns:
        (G,) float64; a group that is full gets its capacity exactly.
    """
    is_full = np.bincount(vessel, capacities)[vessel] <= budget
    quota = np.where(is_full, capacities, 0.0)
    while True:
        given = np.bincount(vessel, np.where(is_full, quota, 0.0))
        weight = np.bincount(vessel, np.where(is_full, 0.0, weights))
        each = np.divide(budget - given, weight, out=np.zeros(len(weight)), where=weight > 0)
        quota = np.where(is_full, capacities, weights * each[vessel])
        overflows = quota > capacities
        if not overflows.any():
            return quota
        is_full |= overflows
        quota[overflows] = capacities[overflows]


def _edges(shown: NDArray[np.float64], file_rows: int) -> NDArray[np.float64]:
    """Return where files begin among the strata, the first left out; each gets as many of the rows ``shown`` (S,)."""
    ends = np.cumsum(shown)
    n_files = max(int(np.ceil(ends[-1] / file_rows)), 1)
    rows = ends[-1] * np.arange(1, n_files) / n_files
    stratum = np.minimum(np.searchsorted(ends, rows, side="right"), len(shown) - 1)
    before = ends[stratum] - shown[stratum]
    edges: NDArray[np.float64] = stratum + (rows - before) / np.maximum(shown[stratum], np.finfo(np.float64).tiny)
    return edges

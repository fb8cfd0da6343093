"""The neighbour search in formulas: the cost model that chooses its cells, in units that were measured here.

Shape letters: N rows, C cells, D features, K neighbours.
"""

from __future__ import annotations

import dataclasses
import math

from distspectral.costs.machines import Gpu
from distspectral.costs.rates import SearchRate
from distspectral.graph.config import GraphConfig, LocalSolver
from distspectral.graph.search.cells import EXTRA, assign_us
from distspectral.graph.search.costs import COMPILE_US, HNSW_RATIO, copy_us, nn_descent_us, pair_us, query_us
from distspectral.graph.search.sampling import most_cells, n_fitted, n_seen
from distspectral.graph.search.tuning import GPU_CELL_ROWS, candidates

MOST_COPIES = float(1 + max(EXTRA))
GPU_FEED_US = 0.8
"""Core-microseconds of a row in a cell that is left to a host whose accelerator searches and ranks: of collecting rows
and of merging their lists (AVX-512 Xeon, 10 features)."""
GPU_PAIR_BYTES = 8
"""Moved in an accelerator's memory by one pair of a search: its distance is written, then read for selection."""


@dataclasses.dataclass(frozen=True)
class Join:
    """How rows would be cut.

    Attributes:
        solver: inside the cells.
        cells: C.
        cell_rows: rows of a cell before overlap.
        copies: cells of a row.
        parts_us: core-microseconds of a row by phase.
    """

    solver: LocalSolver
    cells: float
    cell_rows: float
    copies: float
    parts_us: dict[str, float]


def expected_copies(rate: SearchRate, n_rows: float, sample_rows: int) -> float:
    """Return how many cells a row is in: the sample's, growing with the logarithm of N as it grew within the sample."""
    decades = math.log10(max(n_rows / sample_rows, 1.0))
    return min(rate.copies + rate.copies_per_decade * decades, MOST_COPIES)


def route_us(cells: float, dim: int, copies: float) -> float:
    """Return the model's cost of a row's way into its cells."""
    return assign_us(max(1, round(cells)), dim) + copies * copy_us(dim) / 2


def solve_us(solver: LocalSolver, cell_rows: float, n_rows: float, dim: int, copies: float) -> float:
    """Return the model's cost of a row in cells of so many rows each before overlap."""
    if solver == "exact":
        return copies * (query_us(dim) + copies * cell_rows * pair_us(dim))
    each = copies * nn_descent_us(copies * cell_rows, dim)
    return each + COMPILE_US / n_rows if solver == "nn_descent" else HNSW_RATIO * each


def merge_us(dim: int, copies: float) -> float:
    """Return the model's cost of merging a row's lists."""
    return copies * copy_us(dim) / 2


def expected_join(rate: SearchRate, config: GraphConfig, n_rows: float, sample_rows: int, gpu: bool) -> Join:
    """Return the cheapest way to cut N rows; the model's phases are multiplied by what they took in the sample.

    Cells are as large as they were tuned to be on the sample, for the copies that go with them were counted there.
    Other solvers take their own, larger cells with as many copies, which is more than they need.
    """
    dim, copies, joins = rate.dim, expected_copies(rate, n_rows, sample_rows), []
    options: dict[LocalSolver, list[float]] = {rate.solver: [sample_rows / rate.cells]}
    for solver, sizes in candidates(config, int(n_rows), dim):
        options.setdefault(solver, [float(size) for size in sizes])
    if gpu:
        options = {"exact": [float(size) for size in GPU_CELL_ROWS]}
    for solver, rows_of_cells in options.items():
        for size in rows_of_cells:
            cells = max(1.0, min(n_rows / size, most_cells(config, dim)))
            rows = n_rows / cells
            parts = {
                "sample": rate.truth_us,
                "route": rate.route * route_us(cells, dim, copies),
                "solve": rate.solve * solve_us(solver, rows, n_rows, dim, copies),
                "merge": rate.merge * merge_us(dim, copies),
            }
            joins.append(Join(solver, cells, rows, copies, parts))
    return min(joins, key=lambda join: sum(join.parts_us.values()))


def gpu_pair(gpu: Gpu, dim: int) -> tuple[float, str]:
    """Return the seconds of a pair on an accelerator at its full rates, and how they come about."""
    flops, moved = 2 * dim / gpu.flops, GPU_PAIR_BYTES / gpu.bandwidth
    if flops > moved:
        return flops, f"2 x {dim} flop / {gpu.flops:.3g}"
    return moved, f"{GPU_PAIR_BYTES} B / {gpu.bandwidth:.3g}"


def gpu_copy_bytes(dim: int) -> int:
    """Return what passes between host and accelerator for one row of a cell.

    Rows go there as float32, come back as halves with three numbers more, and go there again as queries and as base.
    """
    return 4 * dim + 3 * 2 * (dim + 3)


def pooled_rows(config: GraphConfig, dim: int, n_rows: float, cells: float) -> int:
    """Return how many rows so many cells are fitted to and counted with."""
    return n_fitted(config, dim, n_rows, cells) + n_seen(n_rows, cells)

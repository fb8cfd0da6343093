"""Before anything is joined, a sample says which cells and how much overlap reach the target recall most cheaply.

A pair of true neighbours can be found if it shares a cell, so the share of such pairs predicts recall; for each number
of cells and each ``max_extra`` the smallest sufficient eps is a quantile over pairs, and a cost model picks the
cheapest setting whose cells fit into a task's memory. Whoever tunes asks what its own machine has: tasks that solve
cells are given the same.

Shape letters: N rows, Q sampled queries, C cells, D features, K neighbours, M cells looked at.
"""

from __future__ import annotations

import dataclasses
import functools
import io
import logging
import math
from collections.abc import Callable
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from distspectral.errors import ConfigError
from distspectral.graph.config import GraphConfig, LocalSolver
from distspectral.graph.search.cells import EXTRA, Cells, assign_us, fit_centroids, fit_regions, split_large
from distspectral.graph.search.costs import (
    COMPILE_US,
    HNSW_RATIO,
    bytes_per_row,
    copy_us,
    nn_descent_us,
    pair_us,
    query_us,
)
from distspectral.graph.search.counting import count_cells
from distspectral.graph.search.cuts import GROUPS
from distspectral.graph.search.faiss_search import uses_gpu
from distspectral.graph.search.local import has_nn_descent, require
from distspectral.graph.search.regions import Regions
from distspectral.graph.search.routing import bisect
from distspectral.graph.search.sampling import LEAST_CELL_ROWS, Rows, Sample, most_cells, n_fitted, sampled
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.rows.vectors import Vectors

logger = logging.getLogger(__name__)

SETTING = ".setting.json"
CELLS = ".cells.npz"
REGIONS = "regions_"
MIN_GROUP_ROWS = 1 << 14
MAX_CELL_ROWS = 1 << 18
"""A cell is one task's work: larger ones would leave workers idle."""
FILL = 0.75
"""Share of a task's memory that cells are planned to fill; the sample may underestimate the largest."""
LEAST_COPIES = 1.2
"""Cells of a row where borders hardly cut: it spares trying hopeless solvers."""
LOCAL_SHARE = 0.4
"""Share of the loss that an approximate local solver may cause; borders may cause the rest."""
EXACT_CELL_ROWS = (LEAST_CELL_ROWS, 500, 1000, 2000, 4000, 8000)
GPU_CELL_ROWS = (64_000, 128_000)
"""Large enough to fill a GPU; unmeasured, and the cost model knows CPUs only."""
APPROXIMATE_CELL_ROWS = (16_000, 32_000, 64_000, 128_000, MAX_CELL_ROWS)


@dataclasses.dataclass(frozen=True)
class Forecast:
    """What is expected of a join, by a sample; errors are standard errors of sampling.

    Attributes:
        recall: share of the sample's true pairs that share a cell.
        recall_error: of that; a query's pairs count as one observation.
        copies: cells per row.
        copies_error: of that.
        largest_cell: rows of the cell that is estimated to have most.
        largest_cell_bound: likewise, with two standard errors added to each cell's.
        microseconds: core-microseconds per row.
    """

    recall: float
    recall_error: float
    copies: float
    copies_error: float
    largest_cell: float
    largest_cell_bound: float
    microseconds: float


@dataclasses.dataclass(frozen=True)
class Setting:
    """What the join will do, and what is expected of it.

    Attributes:
        cells: centroids and overlap; one cell means that nothing is cut.
        groups: (C,) which cells share a task.
        solver: inside the cells.
        local_target: recall that the solver must reach inside a cell.
        forecast: what a sample says of it.
    """

    cells: Cells
    groups: NDArray[np.int32]
    solver: LocalSolver
    local_target: float
    forecast: Forecast

    def write(self, artifact: Artifact) -> None:
        """Write it where :meth:`read` finds it: the cells first, so that a file of values means that all is there."""
        cells = self.cells
        arrays: dict[str, Any] = {"groups": self.groups, "centroids": cells.centroids}
        if cells.regions is not None:
            regions = vars(cells.regions)
            arrays |= {REGIONS + name: array for name, array in regions.items()}
        artifact.write_file(CELLS, lambda stream: np.savez(stream, **arrays))
        values = {"solver": self.solver, "local_target": self.local_target, "max_extra": cells.max_extra}
        artifact.write_json(SETTING, {**values, "eps": cells.eps, "forecast": dataclasses.asdict(self.forecast)})

    @classmethod
    def read(cls, artifact: Artifact) -> Self | None:
        """Return the setting that was written to an artifact, None where there is none."""
        if not artifact.has(SETTING):
            return None
        values = artifact.read_json(SETTING)
        forecast = Forecast(**values.pop("forecast"))
        with np.load(io.BytesIO(artifact.read_bytes(CELLS))) as arrays:
            regions = {name.removeprefix(REGIONS): arrays[name] for name in arrays if name.startswith(REGIONS)}
            overlap = values.pop("max_extra"), values.pop("eps")
            cells = Cells(arrays["centroids"], *overlap, Regions(**regions) if regions else None)
            return cls(cells=cells, groups=arrays["groups"], forecast=forecast, **values)


def most_rows(config: GraphConfig, solver: LocalSolver, dim: int) -> int:
    """Return how many rows of one cell fit into a task's memory."""
    return config.task_memory // bytes_per_row(solver, dim, config.n_neighbors)


def single_cell(vectors: Vectors, config: GraphConfig) -> Setting | None:
    """Return the setting of one cell for everything: few rows, or an approximate solver asked for and room for it."""
    if vectors.n_rows <= min(EXACT_CELL_ROWS[0], most_rows(config, "exact", vectors.dim)):
        return _uncut(vectors, "exact", 1.0)
    solver = config.solver
    if solver == "auto" or solver == "exact":
        return None
    if vectors.n_rows > min(MAX_CELL_ROWS, _limit(config, solver, vectors.dim)):
        return None
    return _uncut(vectors, solver, config.target_recall)


def _uncut(vectors: Vectors, solver: LocalSolver, target: float) -> Setting:
    cells, n_rows = Cells(vectors.mean.astype(np.float32)[None], 0, 0.0), float(vectors.n_rows)
    return Setting(cells, np.zeros(1, np.int32), solver, target, Forecast(1.0, 0.0, 1.0, 0.0, n_rows, n_rows, 0.0))


def tune(sample: Sample, config: GraphConfig) -> Setting:
    """Return the cheapest setting that reaches the target recall on the sample, with what this machine has.

    Args:
        sample: of N rows.
        config: target recall, memory of a task, solver.

    Raises:
        ConfigError: no setting reaches the target within the memory.
        MissingDependencyError: NN-descent is asked for and not installed.
    """
    n_rows, dim = sample.n_rows, sample.queries.shape[1]
    best: _Option | None = None
    for solver, sizes in candidates(config, n_rows, dim):
        find = functools.partial(_cheapest, config, sample, solver)
        if best is None or _typical_us(solver, max(sizes), n_rows, dim, LEAST_COPIES) < _us(best):
            found = _descend(find, sizes, _guess(solver, sizes, n_rows, dim))
            best = min(filter(None, (best, found)), key=_us, default=None)
    if best is None:
        raise ConfigError(
            f"graph.target_recall: {config.target_recall} is out of reach with graph.task_memory = "
            f"{config.task_memory:,} bytes for {n_rows:,} rows of {dim} features; raise the memory or lower "
            "the recall",
            parameters=["graph.target_recall", "graph.task_memory"],
        )
    cells, solver, forecast = best.cells, best.solver, best.forecast
    logger.info("%d cells, %d extra, eps %.3f", len(cells), cells.max_extra, cells.eps)
    groups = bisect(cells.centroids, best.sizes, group_rows(config, solver, dim, forecast.copies * n_rows))
    return Setting(cells, groups, solver, _local_target(config, solver), forecast)


@dataclasses.dataclass(frozen=True)
class _Option:
    """Cells that suffice, with the expected rows (C,) of each."""

    solver: LocalSolver
    cells: Cells
    sizes: NDArray[np.float64]
    forecast: Forecast


def _us(option: _Option) -> float:
    return option.forecast.microseconds


def group_rows(config: GraphConfig, solver: LocalSolver, dim: int, copies: float) -> float:
    """Return how many rows the cells of a task may be expected to have, of so many copies of rows in all cells."""
    return min(_limit(config, solver, dim), max(MIN_GROUP_ROWS, copies / GROUPS))


def _limit(config: GraphConfig, solver: LocalSolver, dim: int) -> float:
    """Return how many rows a cell may be expected to have."""
    return FILL * most_rows(config, solver, dim)


def _local_target(config: GraphConfig, solver: LocalSolver) -> float:
    return 1.0 if solver == "exact" else 1 - LOCAL_SHARE * (1 - config.target_recall)


def candidates(config: GraphConfig, n_rows: int, dim: int) -> list[tuple[LocalSolver, list[int]]]:
    """Return solvers to consider and for each the numbers of rows nearest to a centroid, ascending.

    Raises:
        MissingDependencyError: NN-descent is asked for and not installed.
    """
    sizes: dict[LocalSolver, tuple[int, ...]] = {}
    if config.solver == "auto" or config.solver == "exact":
        sizes["exact"] = GPU_CELL_ROWS if uses_gpu(config.device) else EXACT_CELL_ROWS
    if config.solver == "auto" and has_nn_descent() and not uses_gpu(config.device):
        sizes["nn_descent"] = APPROXIMATE_CELL_ROWS
    if config.solver == "nn_descent" or config.solver == "hnsw":
        require(config.solver)
        sizes[config.solver] = APPROXIMATE_CELL_ROWS
    floor, candidates = 4 * (config.n_neighbors + 1), []
    for solver, rows in sizes.items():
        most = min(n_rows - 1, _limit(config, solver, dim) / 2)
        least = math.ceil(n_rows / most_cells(config, dim))
        if fitting := sorted({size for size in (max(size, least) for size in rows) if floor <= size <= most}):
            candidates.append((solver, fitting))
    fits = int(_limit(config, "exact", dim))
    return candidates or [("exact", [max(1, min(fits, n_rows // 2))])]


def _descend(find: Callable[[int], _Option | None], sizes: list[int], start: int) -> _Option | None:
    """Return the cheapest option, walking from ``sizes[start]`` both ways for as long as it gets cheaper."""
    best = find(sizes[start])
    for towards in (sizes[:start][::-1], sizes[start + 1 :]):
        for size in towards:
            found = find(size)
            if best is not None and (found is None or _us(found) >= _us(best)):
                break
            best = found or best
    return best


def _cheapest(config: GraphConfig, sample: Sample, solver: LocalSolver, cell_rows: int) -> _Option | None:
    """Return the cheapest sufficient overlap of cells of about ``cell_rows`` rows, None where nothing suffices."""
    n_rows, dim = sample.n_rows, sample.queries.shape[1]
    n_cells, limit = -(-n_rows // cell_rows), _limit(config, solver, dim)
    fitted = _some(sample.fitted, n_fitted(config, dim, n_rows, n_cells), config.seed + 1)
    centroids = fit_centroids(fitted, n_cells, config.seed)
    centroids = split_large(centroids, fitted, min(2 * cell_rows, limit) / n_rows, config.seed)
    overlaps = _overlaps(config, solver, centroids, sample)
    return min((one for one in overlaps if one.forecast.largest_cell <= limit), key=_us, default=None)


def _some(rows: Rows, count: int, seed: int) -> NDArray[np.float32]:
    return rows.gather(sampled(rows.n_rows, count, seed))


def _cost_us(solver: LocalSolver, dim: int, n_rows: int, n_cells: int, copies: float, pairs: float) -> float:
    """Return core-microseconds per row: assigning, moving copies, solving cells.

    Args:
        solver: inside them.
        dim: D.
        n_rows: N.
        n_cells: C.
        copies: cells per row.
        pairs: sum of the cells' squared sizes over N.
    """
    moving = assign_us(n_cells, dim) + copies * copy_us(dim)
    if solver == "exact":
        return moving + copies * query_us(dim) + pairs * pair_us(dim)
    solving = copies * nn_descent_us(copies * n_rows / n_cells, dim)
    return moving + (solving + COMPILE_US / n_rows if solver == "nn_descent" else HNSW_RATIO * solving)


def _typical_us(solver: LocalSolver, cell_rows: int, n_rows: int, dim: int, copies: float) -> float:
    """Return what cells of equal size would cost with so many copies of a row."""
    return _cost_us(solver, dim, n_rows, -(-n_rows // cell_rows), copies, copies**2 * cell_rows)


def _guess(solver: LocalSolver, sizes: list[int], n_rows: int, dim: int) -> int:
    """Return where to begin: rows are in 2.5 cells of 1,000 rows, and in fewer where cells are larger."""
    return int(np.argmin([_typical_us(solver, size, n_rows, dim, 2.5 * (1000 / size) ** 0.25) for size in sizes]))


def _overlaps(
    config: GraphConfig, solver: LocalSolver, centroids: NDArray[np.float32], sample: Sample
) -> list[_Option]:
    """Return, per ``max_extra``, the cells with the smallest eps that suffices."""
    (n_cells, dim), n_rows = centroids.shape, sample.n_rows
    wanted = config.target_recall / _local_target(config, solver)
    regions = fit_regions(centroids, config.seed)
    looked_at = min(1 + max(EXTRA), n_cells)
    needed = _needed_eps(Cells(centroids, 0, 0.0, regions), sample, looked_at)
    options: list[tuple[Cells, NDArray[np.bool_]]] = []
    for extra in EXTRA:
        if extra >= looked_at and extra != EXTRA[0]:
            break
        width = min(1 + extra, looked_at)
        pairs = needed[:, :width, :width].min(axis=(1, 2))
        eps = float(np.sort(pairs)[int(np.ceil(wanted * len(pairs))) - 1])
        if np.isfinite(eps):
            eps = eps * (1 + 1e-6) + 1e-6
            options.append((Cells(centroids, extra, eps, regions), pairs <= eps))
    counts = count_cells([cells for cells, _ in options], sample.seen, n_rows, config.seed + 3)
    overlaps = []
    for (cells, found), count in zip(options, counts, strict=True):
        recalls = found.reshape(len(sample.queries), -1).mean(axis=1)
        forecast = Forecast(
            recall=float(recalls.mean()),
            recall_error=float(recalls.std(ddof=1) / np.sqrt(len(recalls))),
            copies=count.copies,
            copies_error=count.copies_error,
            largest_cell=float(count.sizes.max()),
            largest_cell_bound=float((count.sizes + 2 * count.errors).max()),
            microseconds=_cost_us(solver, dim, n_rows, n_cells, count.copies, count.pairs),
        )
        overlaps.append(_Option(solver, cells, count.sizes, forecast))
    return overlaps


def _needed_eps(cells: Cells, sample: Sample, looked_at: int) -> NDArray[np.float32]:
    """Return (Q * K, M, M): the eps at which query's i-th and neighbour's j-th cell are both theirs, if the same."""
    n_neighbors = len(sample.truth) // len(sample.queries)
    query_near, query_borders = (np.repeat(a, n_neighbors, axis=0) for a in cells.nearest(sample.queries, looked_at))
    near, borders = cells.nearest(sample.truth, looked_at)
    farther = np.maximum(query_borders[:, :, None], borders[:, None, :])
    return np.where(query_near[:, :, None] == near[:, None, :], farther, np.float32(np.inf))

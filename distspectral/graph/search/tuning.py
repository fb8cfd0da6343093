"""Before anything is joined, a sample says which cells and how much overlap reach the target recall most cheaply.

Exact neighbours of some sampled rows are found first. A pair of true neighbours can be found if it shares a cell, so
the share of such pairs predicts recall; for each number of cells and each ``max_extra`` the smallest sufficient eps
is a quantile over pairs, and a cost model picks the cheapest setting whose cells fit into a task's memory.

Shape letters: N rows, Q sampled queries, S sampled rows, C cells, D features, K neighbours, M cells looked at.
"""

from __future__ import annotations

import dataclasses
import functools
import io
import logging
from collections.abc import Callable
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from distspectral.errors import ConfigError
from distspectral.graph.config import GraphConfig, LocalSolver
from distspectral.graph.search.cells import (
    POINTS_PER_CENTROID,
    Cells,
    assign_us,
    fit_centroids,
    fit_coarse,
    split_large,
)
from distspectral.graph.search.costs import (
    COMPILE_US,
    HNSW_RATIO,
    bytes_per_row,
    copy_us,
    nn_descent_us,
    pair_us,
    query_us,
)
from distspectral.graph.search.faiss_search import uses_gpu
from distspectral.graph.search.local import has_nn_descent, require
from distspectral.graph.search.routing import bisect
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.rows.vectors import Vectors

logger = logging.getLogger(__name__)

SETTING = "setting.json"
CELLS = "cells.npz"
N_QUERIES = 1000
N_CHECKED = 500
"""Rows that tuning does not see and whose neighbours the finished graph is compared with."""
GROUPS = 64
"""Tasks that rows are dealt to where they fill as many, so that many workers have some."""
MIN_GROUP_ROWS = 1 << 14
MAX_CELL_ROWS = 1 << 18
"""A cell is one task's work: larger ones would leave workers idle."""
N_SEEN = 10_000
EXTRA = (1, 2, 3, 5)
FILL = 0.75
"""Share of a task's memory that cells are planned to fill; the sample may underestimate the largest."""
LEAST_COPIES, TYPICAL_COPIES = 1.2, 2.5
"""Cells of a row: where borders hardly cut, which spares trying hopeless solvers, and where to begin."""
LOCAL_SHARE = 0.4
"""Share of the loss that an approximate local solver may cause; borders may cause the rest."""
EXACT_CELL_ROWS = (250, 500, 1000, 2000, 4000, 8000)
GPU_CELL_ROWS = (64_000, 128_000)
"""Large enough to fill a GPU; unmeasured, and the cost model knows CPUs only."""
APPROXIMATE_CELL_ROWS = (16_000, 32_000, 64_000, 128_000, MAX_CELL_ROWS)


@dataclasses.dataclass(frozen=True)
class Setting:
    """What the join will do, and what is expected of it.

    Attributes:
        cells: centroids and overlap; one cell means that nothing is cut.
        groups: (C,) which cells share a task.
        solver: inside the cells.
        local_target: recall that the solver must reach inside a cell.
        predicted_recall: share of the sample's true pairs that share a cell.
        copies: expected cells per row.
        microseconds: expected core-microseconds per row.
    """

    cells: Cells
    groups: NDArray[np.int32]
    solver: LocalSolver
    local_target: float
    predicted_recall: float
    copies: float
    microseconds: float

    def write(self, artifact: Artifact) -> None:
        """Write it where :meth:`read` finds it: the cells first, so that a file of values means that all is there."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        cells, arrays = values.pop("cells"), {"groups": values.pop("groups")}
        arrays["centroids"] = cells.centroids
        if cells.coarse is not None:
            arrays["coarse"] = cells.coarse
        artifact.write_file(CELLS, lambda stream: np.savez(stream, **arrays))
        artifact.write_json(SETTING, {**values, "max_extra": cells.max_extra, "eps": cells.eps})

    @classmethod
    def read(cls, artifact: Artifact) -> Self | None:
        """Return the setting that was written to an artifact, None where there is none."""
        if not artifact.has(SETTING):
            return None
        values = artifact.read_json(SETTING)
        with np.load(io.BytesIO(artifact.read_bytes(CELLS))) as arrays:
            cells = Cells(arrays["centroids"], values.pop("max_extra"), values.pop("eps"), arrays.get("coarse"))
            return cls(cells=cells, groups=arrays["groups"], **values)


@dataclasses.dataclass(frozen=True)
class Sample:
    """What settings are tried on.

    Attributes:
        n_rows: N, of all.
        queries: (Q, D) sampled rows.
        truth: (Q * K, D) their exact neighbours, query by query.
        seen: (S, D) rows that sizes of cells are estimated from.
    """

    n_rows: int
    queries: NDArray[np.float32]
    truth: NDArray[np.float32]
    seen: NDArray[np.float32]


def sampled(n_rows: int, count: int, seed: int) -> NDArray[np.int64]:
    """Return ``count`` row numbers, ascending, that depend on ``n_rows`` and the seed only."""
    rng = np.random.default_rng([seed, n_rows])
    if count >= n_rows:
        return np.arange(n_rows, dtype=np.int64)
    rows: NDArray[np.int64] = np.sort(rng.choice(n_rows, count, replace=False, shuffle=False))
    return rows


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
    require(solver)
    if vectors.n_rows > min(MAX_CELL_ROWS, FILL * most_rows(config, solver, vectors.dim)):
        return None
    return _uncut(vectors, solver, config.target_recall)


def _uncut(vectors: Vectors, solver: LocalSolver, target: float) -> Setting:
    cells = Cells(vectors.mean.astype(np.float32)[None], 0, 0.0)
    return Setting(cells, np.zeros(1, np.int32), solver, target, 1.0, 1.0, 0.0)


def tune(vectors: Vectors, config: GraphConfig, queries: NDArray[np.int64], truth: NDArray[np.int64]) -> Setting:
    """Return the cheapest setting that reaches the target recall on the sample.

    Args:
        vectors: (N, D).
        config: target recall, memory of a task, solver.
        queries: (Q,) sampled rows.
        truth: (Q, K) their exact neighbours.

    Raises:
        ConfigError: no setting reaches the target within the memory.
    """
    n_rows = vectors.n_rows
    seen = vectors.gather(sampled(n_rows, N_SEEN, config.seed + 2))  # k-means is nearer to its own sample
    sample = Sample(n_rows, vectors.gather(queries), vectors.gather(truth.ravel()), seen)
    best: Setting | None = None
    for solver, sizes in candidates(config, n_rows, vectors.dim):
        find = functools.partial(_cheapest, vectors, config, sample, solver)
        if best is None or _typical_us(solver, max(sizes), n_rows, vectors.dim, LEAST_COPIES) < best.microseconds:
            found = _descend(find, sizes, _guess(solver, sizes, n_rows, vectors.dim))
            best = min(filter(None, (best, found)), key=lambda setting: setting.microseconds, default=None)
    if best is None:
        raise ConfigError(
            f"graph.target_recall: {config.target_recall} is out of reach with graph.task_memory = "
            f"{config.task_memory:,} bytes for {n_rows:,} rows of {vectors.dim} features; raise the memory or lower "
            "the recall",
            parameters=["graph.target_recall", "graph.task_memory"],
        )
    logger.info("%d cells, %d extra, eps %.3f", len(best.cells), best.cells.max_extra, best.cells.eps)
    return best


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
        most = min(n_rows - 1, FILL * most_rows(config, solver, dim) / 2)
        if fitting := [size for size in rows if floor <= size <= most]:
            candidates.append((solver, fitting))
    fits = int(FILL * most_rows(config, "exact", dim))
    return candidates or [("exact", [max(1, min(fits, n_rows // 2))])]


def _descend(find: Callable[[int], Setting | None], sizes: list[int], start: int) -> Setting | None:
    """Return the cheapest setting, walking from ``sizes[start]`` both ways for as long as it gets cheaper."""
    best = find(sizes[start])
    for towards in (sizes[:start][::-1], sizes[start + 1 :]):
        for size in towards:
            found = find(size)
            if best is not None and (found is None or found.microseconds >= best.microseconds):
                break
            best = found or best
    return best


def _cheapest(
    vectors: Vectors, config: GraphConfig, sample: Sample, solver: LocalSolver, cell_rows: int
) -> Setting | None:
    """Return the cheapest sufficient overlap of cells of about ``cell_rows`` rows, None where nothing suffices."""
    n_rows, dim = vectors.n_rows, vectors.dim
    n_cells = -(-n_rows // cell_rows)
    limit = FILL * most_rows(config, solver, dim)
    n_fitted = min(n_rows, max(N_SEEN, POINTS_PER_CENTROID * n_cells), config.task_memory // (32 * dim))
    fitted = vectors.gather(sampled(n_rows, n_fitted, config.seed + 1))
    centroids = fit_centroids(fitted, n_cells, config.seed)
    centroids = split_large(centroids, fitted, min(2 * cell_rows, limit) / n_rows, config.seed)
    overlaps = _overlaps(config, solver, centroids, sample)
    fitting = [setting for setting, largest in overlaps if largest <= limit]
    return min(fitting, key=lambda setting: setting.microseconds, default=None)


def _cost_us(solver: LocalSolver, dim: int, n_rows: int, sizes: NDArray[np.floating[Any]]) -> float:
    """Return core-microseconds per row: assigning, moving copies, solving cells of ``sizes`` (C,)."""
    copies = float(sizes.sum() / n_rows)
    moving = assign_us(len(sizes), dim) + copies * copy_us(dim)
    if solver == "exact":
        return moving + copies * query_us(dim) + float(np.square(sizes).sum()) / n_rows * pair_us(dim)
    solving = copies * nn_descent_us(float(sizes.mean()), dim)
    return moving + (solving + COMPILE_US / n_rows if solver == "nn_descent" else HNSW_RATIO * solving)


def _typical_us(solver: LocalSolver, cell_rows: int, n_rows: int, dim: int, copies: float) -> float:
    """Return what cells of equal size would cost with so many copies of a row."""
    return _cost_us(solver, dim, n_rows, np.full(-(-n_rows // cell_rows), copies * cell_rows))


def _guess(solver: LocalSolver, sizes: list[int], n_rows: int, dim: int) -> int:
    return int(np.argmin([_typical_us(solver, size, n_rows, dim, TYPICAL_COPIES) for size in sizes]))


def _overlaps(
    config: GraphConfig, solver: LocalSolver, centroids: NDArray[np.float32], sample: Sample
) -> list[tuple[Setting, float]]:
    """Return, per ``max_extra``, the setting with the smallest eps that suffices, and its largest cell's rows."""
    dim, n_rows, seen = centroids.shape[1], sample.n_rows, sample.seen
    local_target = 1.0 if solver == "exact" else 1 - LOCAL_SHARE * (1 - config.target_recall)
    wanted = config.target_recall / local_target
    coarse = fit_coarse(centroids, config.seed)
    probe = Cells(centroids, 0, 0.0, coarse)
    looked_at = min(1 + max(EXTRA), len(centroids))
    needed = _needed_eps(probe, sample, looked_at)
    near, borders = probe.nearest(seen, looked_at)
    settings = []
    for extra in EXTRA:
        if extra >= looked_at and extra != EXTRA[0]:
            break
        width = min(1 + extra, looked_at)
        pairs = np.sort(needed[:, :width, :width].min(axis=(1, 2)))
        eps = float(pairs[int(np.ceil(wanted * len(pairs))) - 1])
        if not np.isfinite(eps):
            continue
        eps = eps * (1 + 1e-6) + 1e-6
        inside = near[:, :width][borders[:, :width] <= eps]
        sizes = np.bincount(inside, minlength=len(centroids)) * (n_rows / len(seen))
        copies = float(sizes.sum() / n_rows)
        predicted = float(np.count_nonzero(pairs <= eps) / len(pairs))
        cost = _cost_us(solver, dim, n_rows, sizes)
        per_group = min(FILL * most_rows(config, solver, dim), max(MIN_GROUP_ROWS, copies * n_rows / GROUPS))
        groups = bisect(centroids, sizes, per_group)
        cells = Cells(centroids, extra, eps, coarse)
        settings.append((Setting(cells, groups, solver, local_target, predicted, copies, cost), float(sizes.max())))
    return settings


def _needed_eps(cells: Cells, sample: Sample, looked_at: int) -> NDArray[np.float32]:
    """Return (Q * K, M, M): the eps at which query's i-th and neighbour's j-th cell are both theirs, if the same."""
    n_neighbors = len(sample.truth) // len(sample.queries)
    query_near, query_borders = (np.repeat(a, n_neighbors, axis=0) for a in cells.nearest(sample.queries, looked_at))
    near, borders = cells.nearest(sample.truth, looked_at)
    farther = np.maximum(query_borders[:, :, None], borders[:, None, :])
    return np.where(query_near[:, :, None] == near[:, None, :], farther, np.float32(np.inf))

"""Before anything is joined, a sample says which cells and how much overlap reach the target recall most cheaply.

Exact neighbours of some sampled rows are found first. A pair of true neighbours can be found if it shares a cell, so
the share of such pairs predicts recall; for each number of cells and each ``max_extra`` the smallest sufficient eps
is a quantile over pairs, and a cost model picks the cheapest setting whose cells fit into a task's memory.

Shape letters: N rows, Q sampled queries, S sampled rows, C cells, D features, K neighbours, M cells looked at.
"""

from __future__ import annotations

import dataclasses
import logging

import numpy as np
from numpy.typing import NDArray

from distspectral.errors import ConfigError
from distspectral.graph.cells import POINTS_PER_CENTROID, Cells, fit_centroids, split_large
from distspectral.graph.config import GraphConfig, LocalSolver
from distspectral.graph.faiss_search import uses_gpu
from distspectral.graph.local import bytes_per_row, choose_solver, exact_us, nn_descent_us
from distspectral.storage.vectors import Vectors

logger = logging.getLogger(__name__)

N_QUERIES = 1000
MAX_CELL_ROWS = 1 << 18
"""A cell is one task's work: larger ones would leave workers idle."""
MIN_SAMPLE_ROWS = 20_000
EXTRA = (1, 2, 3, 5, 7)
FILL = 0.75
"""Share of a task's memory that cells are planned to fill; the sample may underestimate the largest."""
COMPILE_US = 3.5e7
"""Core-microseconds that pynndescent compiles in each process before it finds anything (0.7.0: 35 to 50 s)."""
LOCAL_SHARE = 0.4
"""Share of the loss that an approximate local solver may cause; borders may cause the rest."""
EXACT_CELL_ROWS = (1000, 2000, 4000, 8000, 16_000, 32_000, 64_000, 128_000)
GPU_CELL_ROWS = (128_000, 64_000)
"""Large enough to fill a GPU; unmeasured, and the cost model knows CPUs only."""
APPROXIMATE_CELL_ROWS = (16_000, 32_000, 64_000, 128_000, MAX_CELL_ROWS)


@dataclasses.dataclass(frozen=True)
class Setting:
    """What the join will do, and what is expected of it.

    Attributes:
        cells: centroids and overlap; one cell means that nothing is cut.
        solver: inside the cells.
        local_target: recall that the solver must reach inside a cell.
        predicted_recall: share of the sample's true pairs that share a cell.
        copies: expected cells per row.
        microseconds: expected core-microseconds per row.
    """

    cells: Cells
    solver: LocalSolver
    local_target: float
    predicted_recall: float
    copies: float
    microseconds: float


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
        cells = Cells(vectors.mean.astype(np.float32)[None], 0, 0.0)
        return Setting(cells, "exact", 1.0, 1.0, 1.0, exact_us(vectors.n_rows, vectors.dim))
    if config.solver in ("auto", "exact"):
        return None
    solver = choose_solver(config.solver, config.device, vectors.n_rows, vectors.dim)
    if vectors.n_rows > min(MAX_CELL_ROWS, FILL * most_rows(config, solver, vectors.dim)):
        return None
    cells = Cells(vectors.mean.astype(np.float32)[None], 0, 0.0)
    return Setting(cells, solver, config.target_recall, 1.0, 1.0, nn_descent_us(vectors.n_rows, vectors.dim))


def calibrate(vectors: Vectors, config: GraphConfig, queries: NDArray[np.int64], truth: NDArray[np.int64]) -> Setting:
    """Return the cheapest setting that reaches the target recall on the sample.

    Args:
        vectors: (N, D).
        config: target recall, memory of a task, solver.
        queries: (Q,) sampled rows.
        truth: (Q, K) their exact neighbours.

    Raises:
        ConfigError: no setting reaches the target within the memory.
    """
    n_rows, dim = vectors.n_rows, vectors.dim
    query_rows, truth_rows = vectors.gather(queries), vectors.gather(truth.ravel())
    best: Setting | None = None
    for solver, cell_rows in _candidates(config, n_rows, dim):
        n_cells = int(np.ceil(n_rows * 1.25 / cell_rows))
        if n_cells < 2:
            continue
        least = _cost(n_cells, dim, 1.1, solver, [cell_rows] * n_cells, n_rows)
        if best is not None and least >= best.microseconds:
            continue
        n_sample = min(n_rows, max(MIN_SAMPLE_ROWS, POINTS_PER_CENTROID * n_cells), config.task_memory // (8 * dim))
        sample = vectors.gather(sampled(n_rows, n_sample, config.seed + 1))
        limit = FILL * most_rows(config, solver, dim)
        centroids = fit_centroids(sample, n_cells, config.seed)
        centroids = split_large(centroids, sample, min(2.5 * cell_rows, limit) / 1.25 / n_rows, config.seed)
        for setting, largest in _overlaps(config, solver, centroids, query_rows, truth_rows, sample, n_rows):
            if largest <= limit and (best is None or setting.microseconds < best.microseconds):
                best = setting
    if best is None:
        raise ConfigError(
            f"graph.target_recall: {config.target_recall} is out of reach with graph.task_memory = "
            f"{config.task_memory:,} bytes for {n_rows:,} rows of {dim} features; raise the one or lower the other"
        )
    logger.info("%d cells, %d extra, eps %.3f", len(best.cells), best.cells.max_extra, best.cells.eps)
    return best


def _candidates(config: GraphConfig, n_rows: int, dim: int) -> list[tuple[LocalSolver, int]]:
    """Return (solver, rows of a cell), the likeliest to be cheap first."""
    candidates: list[tuple[LocalSolver, int]] = []
    if uses_gpu(config.device):
        on_gpu = [rows for rows in GPU_CELL_ROWS if rows <= FILL * most_rows(config, "exact", dim)]
        candidates = [("exact", rows) for rows in on_gpu if rows < n_rows]
        if candidates and config.solver in ("auto", "exact"):
            return candidates
        candidates = []
    for cell_rows in sorted({*EXACT_CELL_ROWS, *APPROXIMATE_CELL_ROWS}, reverse=True):
        solver = choose_solver(config.solver, config.device, cell_rows, dim)
        sizes = EXACT_CELL_ROWS if solver == "exact" else APPROXIMATE_CELL_ROWS
        floor = 8 * (config.n_neighbors + 1)
        if cell_rows in sizes and floor <= cell_rows <= FILL * most_rows(config, solver, dim):
            candidates.append((solver, cell_rows))
    if not candidates or n_rows <= min(rows for _, rows in candidates):
        fits = int(FILL * most_rows(config, "exact", dim))
        candidates.append(("exact", max(1, min(fits, n_rows // 2))))
    return candidates


def _cost(n_cells: int, dim: int, copies: float, solver: LocalSolver, sizes: list[int], n_rows: int) -> float:
    """Return core-microseconds per row: assigning, moving copies, solving."""
    squares = float(np.square(np.asarray(sizes, np.float64)).sum()) / n_rows
    if solver == "exact":
        solving = exact_us(squares, dim)
    else:
        solving = copies * nn_descent_us(float(np.mean(sizes)), dim) * (1 if solver == "nn_descent" else 3)
        solving += COMPILE_US / n_rows if solver == "nn_descent" else 0.0
    return exact_us(min(n_cells, 2000), dim) + copies * (10 + 0.05 * dim) + solving


def _overlaps(
    config: GraphConfig,
    solver: LocalSolver,
    centroids: NDArray[np.float32],
    query_rows: NDArray[np.float32],
    truth_rows: NDArray[np.float32],
    sample: NDArray[np.float32],
    n_rows: int,
) -> list[tuple[Setting, float]]:
    """Return, per ``max_extra``, the setting with the smallest eps that suffices, and its largest cell's rows."""
    local_target = 1.0 if solver == "exact" else 1 - LOCAL_SHARE * (1 - config.target_recall)
    wanted = config.target_recall / local_target
    probe = Cells(centroids, 0, 0.0)
    looked_at = min(1 + max(EXTRA), len(centroids))
    needed = _needed_eps(probe, query_rows, truth_rows, looked_at)
    seen = sample[:: max(1, len(sample) // MIN_SAMPLE_ROWS)]
    near, ratios = _ratios(probe, seen, looked_at)
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
        inside = ratios[:, :width] <= eps
        copies = float(inside.sum() / len(seen))
        counts = np.bincount(near[:, :width][inside], minlength=len(centroids))
        sizes = (counts * (n_rows / len(seen))).tolist()
        predicted = float(np.count_nonzero(pairs <= eps) / len(pairs))
        cost = _cost(len(centroids), centroids.shape[1], copies, solver, sizes, n_rows)
        cells = Cells(centroids, extra, eps)
        settings.append((Setting(cells, solver, local_target, predicted, copies, cost), max(sizes)))
    return settings


def _ratios(cells: Cells, rows: NDArray[np.float32], looked_at: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the M nearest cells of rows and how much farther than the nearest each is, as a share."""
    near, distances = cells.nearest(rows, looked_at)
    nearest = distances[:, :1].astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.sqrt(distances / nearest) - 1
    return near, np.where(distances <= nearest, 0.0, ratios)


def _needed_eps(
    cells: Cells, query_rows: NDArray[np.float32], truth_rows: NDArray[np.float32], looked_at: int
) -> NDArray[np.float32]:
    """Return (Q * K, M, M): the eps at which query's i-th and neighbour's j-th cell are both theirs, if the same."""
    n_neighbors = len(truth_rows) // len(query_rows)
    query_near, query_ratios = _ratios(cells, query_rows, looked_at)
    near, ratios = _ratios(cells, truth_rows, looked_at)
    query_near = np.repeat(query_near, n_neighbors, axis=0)[:, :, None]
    query_ratios = np.repeat(query_ratios, n_neighbors, axis=0)[:, :, None]
    farther = np.maximum(query_ratios, ratios[:, None, :]).astype(np.float32)
    return np.where(query_near == near[:, None, :], farther, np.float32(np.inf))

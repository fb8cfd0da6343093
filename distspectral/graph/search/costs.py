"""What the parts of a search cost, in core-microseconds and bytes: only ratios matter, and they choose the cells.

Measured on one shared core of an AVX-512 Xeon at 2.5 GHz with faiss-cpu 1.15.1 and pynndescent 0.7.0; what a pair
costs on one with AMX.
"""

from __future__ import annotations

from distspectral.graph.config import LocalSolver
from distspectral.graph.search.products import rounds

COMPILE_US = 3.5e7
"""What pynndescent compiles in each process before it finds anything (35 to 50 s)."""
HNSW_RATIO = 3
"""HNSW beside NN-descent."""


def pair_us(dim: int) -> float:
    """Return the cost of one pair in a matrix product and its comparison."""
    return 1e-3 * (0.9 + 0.003 * dim if rounds(dim) else 1.3 + 0.0155 * dim)


def query_us(dim: int) -> float:
    """Return the cost of one query beyond its pairs: its heap, and ranking its candidates by true differences."""
    return 5 + 0.01 * dim


def copy_us(dim: int) -> float:
    """Return the cost of a row's way into one cell: written, read, cast, and its list merged."""
    return 3 + 0.02 * dim


def nn_descent_us(n_rows: float, dim: int) -> float:
    """Return the cost of one row of NN-descent among ``n_rows``, with 15 neighbours."""
    return float((50 + 0.12 * dim) * max(n_rows / 1e5, 1e-2) ** 0.18)


def bytes_per_row(solver: LocalSolver, dim: int, n_neighbors: int) -> int:
    """Return an upper bound of what one row takes at the peak of a task.

    The row as stored and as float32, a centred copy, the results; NN-descent adds its lists, heaps and trees.
    """
    rows, results = 12 * dim, 40 * n_neighbors
    return rows + results + {"exact": 0, "nn_descent": 60 * n_neighbors + 300, "hnsw": 4 * dim + 400}[solver]

"""How rows are cut for tasks: blocks that are worked on at once, and runs of blocks that are one task.

Blocks are ranges of global row numbers, so neither shards nor workers decide what meets what. Every routed file meets
every group of cells, so files are as few as a task's memory allows.
Shape letters: N rows, D features, K neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence

from distspectral.graph.config import GraphConfig
from distspectral.graph.search.cells import EXTRA

GROUPS = 64
"""Tasks that rows are dealt to where they fill as many, so that many workers have some."""
MIN_BLOCK_ROWS = 1 << 14
BLOCK_BYTES = 1 << 26
MOST_CELLS = 1 + max(EXTRA)
"""Of a row: what a task's memory is reckoned with."""

Cut = tuple[int, int]
"""First row, and the row after the last."""
Run = tuple[Cut, ...]
"""Consecutive blocks."""


def block_cuts(n_rows: int, dim: int, config: GraphConfig) -> list[Cut]:
    """Return the blocks: equal rows beyond K + 1 in one of them travel no further."""
    rows = _block_rows(n_rows, dim, config)
    return [(start, min(start + rows, n_rows)) for start in range(0, n_rows, rows)]


def read_runs(blocks: Sequence[Cut], dim: int, config: GraphConfig) -> list[Run]:
    """Return the tasks that read vectors: half of their memory holds the rows, and which cells each is in."""
    return _runs(blocks, _read_bytes(dim), config)


def merge_runs(blocks: Sequence[Cut], config: GraphConfig) -> list[Run]:
    """Return the tasks that merge lists: half of their memory holds them, and a copy in the order of rows."""
    return _runs(blocks, _merged_bytes(config), config)


def run_counts(n_rows: int, dim: int, config: GraphConfig) -> tuple[int, int]:
    """Return how many tasks read vectors, and how many merge lists, without listing them."""
    rows = _block_rows(n_rows, dim, config)
    n_blocks = -(-n_rows // rows)
    read, merged = (_per_task(n_blocks, rows, each, config) for each in (_read_bytes(dim), _merged_bytes(config)))
    return -(-n_blocks // read), -(-n_blocks // merged)


def _block_rows(n_rows: int, dim: int, config: GraphConfig) -> int:
    limit = min(BLOCK_BYTES, config.task_memory // 8) // (4 * max(dim, 12 * config.n_neighbors))
    return config.block_rows or max(MIN_BLOCK_ROWS, min(limit, -(-n_rows // GROUPS)))


def _read_bytes(dim: int) -> int:
    return 4 * dim + 8 + 12 * MOST_CELLS


def _merged_bytes(config: GraphConfig) -> int:
    return MOST_CELLS * (8 + 12 * config.n_neighbors)


def _runs(blocks: Sequence[Cut], bytes_per_row: int, config: GraphConfig) -> list[Run]:
    """Return whole blocks for each task."""
    most = _per_task(len(blocks), blocks[0][1] - blocks[0][0], bytes_per_row, config)
    return [tuple(blocks[first : first + most]) for first in range(0, len(blocks), most)]


def _per_task(n_blocks: int, block_rows: int, bytes_per_row: int, config: GraphConfig) -> int:
    """Return the blocks of a task; one where the config says how many rows a task has."""
    fitting = config.task_memory // 2 // bytes_per_row // block_rows
    return 1 if config.block_rows else max(1, min(fitting, n_blocks // GROUPS))

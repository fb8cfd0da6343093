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
    limit = min(BLOCK_BYTES, config.task_memory // 8) // (4 * max(dim, 12 * config.n_neighbors))
    rows = config.block_rows or max(MIN_BLOCK_ROWS, min(limit, -(-n_rows // GROUPS)))
    return [(start, min(start + rows, n_rows)) for start in range(0, n_rows, rows)]


def read_runs(blocks: Sequence[Cut], dim: int, config: GraphConfig) -> list[Run]:
    """Return the tasks that read vectors: half of their memory holds the rows, and which cells each is in."""
    return _runs(blocks, 4 * dim + 8 + 12 * MOST_CELLS, config)


def merge_runs(blocks: Sequence[Cut], config: GraphConfig) -> list[Run]:
    """Return the tasks that merge lists: half of their memory holds them, and a copy in the order of rows."""
    return _runs(blocks, MOST_CELLS * (8 + 12 * config.n_neighbors), config)


def _runs(blocks: Sequence[Cut], bytes_per_row: int, config: GraphConfig) -> list[Run]:
    """Return whole blocks for each task; one where the config says how many rows a task has."""
    fitting = config.task_memory // 2 // bytes_per_row // (blocks[0][1] - blocks[0][0])
    most = 1 if config.block_rows else max(1, min(fitting, len(blocks) // GROUPS))
    return [tuple(blocks[first : first + most]) for first in range(0, len(blocks), most)]

"""One task of the search: the cells of a group, one after the other, and one list per row of what they found.

Shape letters: R rows of the group, B rows of a cell, M cells of a row, K neighbours.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distspectral.errors import SearchFailedError
from distspectral.graph.config import GraphConfig
from distspectral.graph.search.cells import NO_CELL
from distspectral.graph.search.duplicates import crowd
from distspectral.graph.search.lists import merge_lists
from distspectral.graph.search.local import CellSolver, Solution, of_equal, solve_streaming
from distspectral.graph.search.routing import ROW, RoutedGroup, WholeGroup
from distspectral.graph.store import NEIGHBORS, SQUARED_DISTANCES
from distspectral.storage.rows.vectors import Vectors

Cell = tuple[int, NDArray[np.int64], Callable[[], Solution] | None]
"""Number and ids (B,) of a cell and what solves it; None where it is larger than a task's memory."""


@dataclasses.dataclass
class Solved:
    """The lists of a group and what was counted on the way.

    Attributes:
        columns: rows, ascending, their neighbours and squared distances.
        short: rows that found fewer than K neighbours because their cells are smaller.
        hits: of the solvers' checks.
        tries: of the solvers' checks.
        largest_cell: its rows.
        copies: rows of all cells.
    """

    columns: dict[str, NDArray[Any]]
    short: NDArray[np.int64]
    hits: int = 0
    tries: int = 0
    largest_cell: int = 0
    copies: int = 0


def solve_group(
    rows: RoutedGroup | WholeGroup,
    own_cells: NDArray[np.bool_],
    solver: CellSolver,
    most: int,
    vectors: Vectors,
    config: GraphConfig,
) -> Solved:
    """Return the neighbours that the group's rows find in its cells.

    Args:
        rows: the group's.
        own_cells: (C,) which cells are the group's.
        solver: for one cell.
        most: rows of a cell that fit into memory; a larger one is streamed from ``vectors``.
        vectors: (N, D), all.
        config: the section ``graph``.
    """
    surplus, first, _ = crowd(rows.hashes, config.n_neighbors + 1)
    inside = (rows.cells != NO_CELL) & own_cells[rows.cells]
    inside[surplus] = False
    position, column = np.nonzero(inside)
    cell = rows.cells[position, column]
    order = np.argsort(cell, kind="stable")
    solved = Solved({}, np.empty(0, np.int64), copies=len(order))
    found: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]] = []

    def read(part: NDArray[np.int64]) -> Cell:
        members = position[part]
        ids = rows.ids[members]
        return int(cell[part[0]]), ids, solver.begin(ids, rows.vectors(members)) if len(ids) <= most else None

    parts = np.split(order, np.flatnonzero(np.diff(cell[order])) + 1)
    for number, ids, solution in _read_ahead(read, parts) if solver.is_on_gpu else map(read, parts):
        solved.largest_cell = max(solved.largest_cell, len(ids))
        try:
            if solution is None:
                found.append((ids, *solve_streaming(vectors, ids, config)))
                continue
            neighbors, distances, hits, tries = solution()
        except SearchFailedError as error:
            raise SearchFailedError(
                f"cell {number} of {len(ids):,} rows, from row {ids[0]:,} on: {error}; check what graph.device names, "
                "or set it to cpu",
                parameters=["graph.device"],
            ) from error
        del solution  # and its rows, before the next but one is read
        solved.hits, solved.tries = solved.hits + hits, solved.tries + tries
        found.append((ids, neighbors, distances))
    ids, neighbors, distances = merge_lists(*(np.concatenate(arrays) for arrays in zip(*found, strict=True)))
    solved.short = ids[np.isinf(distances[:, -1])]
    if len(surplus):
        late, at_first = rows.ids[surplus], np.searchsorted(ids, rows.ids[first])
        equal = of_equal(late, rows.ids[first], neighbors[at_first], distances[at_first])
        ids, neighbors = np.concatenate([ids, late]), np.concatenate([neighbors, equal[0]])
        distances = np.concatenate([distances, equal[1]])
        order = np.argsort(ids)
        ids, neighbors, distances = ids[order], neighbors[order], distances[order]
    small = vectors.n_rows <= np.iinfo(np.uint32).max
    stored = neighbors.astype(np.uint32 if small else np.int64)
    solved.columns = {ROW: ids, NEIGHBORS: stored, SQUARED_DISTANCES: distances}
    return solved


def _read_ahead(read: Callable[[NDArray[np.int64]], Cell], parts: Iterable[NDArray[np.int64]]) -> Iterator[Cell]:
    """Yield what ``read`` returns of each part while a thread does so of the next: two of them are in memory."""
    with ThreadPoolExecutor(1) as reader:
        coming = None
        for part in parts:
            cell = coming and coming.result()
            coming = reader.submit(read, part)
            if cell:
                yield cell
        if coming:
            yield coming.result()

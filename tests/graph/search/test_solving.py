from __future__ import annotations

import sys
import threading
import weakref

import numpy as np
import pytest

from distspectral.errors import SearchFailedError
from distspectral.graph.config import GraphConfig
from distspectral.graph.search.duplicates import row_hashes
from distspectral.graph.search.local import CellSolver
from distspectral.graph.search.solving import solve_group
from distspectral.graph.store import NEIGHBORS, SQUARED_DISTANCES
from distspectral.storage.rows.vectors import ArrayVectors
from tests.datasets import blobs
from tests.graph.search.fake_faiss import FakeFaiss

ROWS, LABELS = blobs(1500, 6)
CONFIG = GraphConfig(n_neighbors=7)
EXACT = CellSolver("exact", 7, 1.0, 0)


class Group:
    """Rows in memory as one group, the cells of each as they are told; notes what is read, and in which thread."""

    def __init__(self, rows, cells):
        self.ids, self.hashes, self.cells = np.arange(len(rows)), row_hashes(rows), cells.astype(np.int32)
        self._rows, self.reads, self.most_kept = rows, [], 0
        self._handed_out = []
        self.another_read = threading.Semaphore(0)

    def vectors(self, members):
        self.reads.append((len(members), threading.current_thread()))
        self.most_kept = max(self.most_kept, sum(kept() is not None for kept in self._handed_out))
        self.another_read.release()
        found = self._rows[members]
        self._handed_out.append(weakref.ref(found))
        return found


def solve(group, solver=EXACT, most=10_000):
    everything = np.ones(int(group.cells.max()) + 1, bool)
    return solve_group(group, everything, solver, most, ArrayVectors(ROWS), CONFIG)


def test_a_gpu_finds_what_a_cpu_finds_cell_by_cell(monkeypatch):
    cells = np.stack([LABELS, np.where(np.arange(1500) % 5, -1, 3)], axis=1)  # the fourth takes some rows of each
    expected = solve(Group(ROWS, cells))
    monkeypatch.setitem(sys.modules, "faiss", fake := FakeFaiss())
    solved = solve(Group(ROWS, cells))
    np.testing.assert_array_equal(solved.columns[NEIGHBORS], expected.columns[NEIGHBORS])
    np.testing.assert_allclose(solved.columns[SQUARED_DISTANCES], expected.columns[SQUARED_DISTANCES], rtol=1e-6)
    assert solved.hits == solved.tries > 0
    assert len(fake.asked) == 3, "three cells of halves; the fourth is no larger than the sample"
    assert solved.copies == expected.copies == 1800
    assert len(solved.short) == len(expected.short) == 0


class WaitingSolver:
    """Stands for a GPU's solver: it is not done before the next cell is being read, and never is a third in memory."""

    is_on_gpu = True

    def __init__(self, group, n_cells):
        self.group, self.n_cells, self.n_solved = group, n_cells, 0

    def begin(self, ids, rows):
        return lambda: self.solve(ids, rows)

    def solve(self, ids, rows):
        own_and_next = 2 if self.n_solved == 0 else 1
        for _ in range(own_and_next if self.n_solved < self.n_cells - 1 else 0):
            assert self.group.another_read.acquire(timeout=60), "the next cell is read meanwhile"
        self.n_solved += 1
        assert len(self.group.reads) <= self.n_solved + 1
        return EXACT(ids, rows)


def test_while_a_gpu_solves_a_cell_the_next_one_is_read():
    group = Group(ROWS, np.arange(1500)[:, None] % 6)
    solve(group, WaitingSolver(group, 6))
    assert len(group.reads) == 6
    assert group.most_kept == 1, "beside what is read then"
    assert all(thread is not threading.current_thread() for _, thread in group.reads)


def test_a_cpu_reads_the_cells_it_solves_itself():
    group = Group(ROWS, LABELS[:, None])
    solve(group)
    assert group.reads == [(n, threading.current_thread()) for n in np.bincount(LABELS)]


@pytest.mark.parametrize("n_gpus", [0, 1])
def test_a_cell_beyond_memory_is_not_read_whole(monkeypatch, n_gpus):
    monkeypatch.setitem(sys.modules, "faiss", FakeFaiss(n_gpus))
    cells = np.zeros((1500, 1))
    cells[:100] = 1
    group = Group(ROWS, cells)
    solved = solve(group, most=1000)
    assert [n for n, _ in group.reads] == [100]
    assert solved.largest_cell == 1400
    assert np.isfinite(solved.columns[SQUARED_DISTANCES]).all()


def test_rows_of_cells_smaller_than_k_are_named():
    cells = np.zeros((1500, 2))
    cells[:, 1] = -1
    cells[[3, 10, 700], 0] = 1
    cells[10, 1] = 0  # it has another cell
    solved = solve(Group(ROWS, cells))
    assert solved.short.tolist() == [3, 700]


def test_an_error_of_a_device_names_the_cell(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", FakeFaiss(broken=True))
    cells = np.where(np.arange(1500) < 200, 4, 2)[:, None]
    with pytest.raises(SearchFailedError, match=r"cell 2 of 1,300 rows, from row 200 on: FAISS on the GPU") as refused:
        solve(Group(ROWS, cells))
    assert refused.value.parameters == ("graph.device",)
    assert "graph.device" in str(refused.value)

from __future__ import annotations

import sys

import faiss
import numpy as np
import pytest

from distspectral.errors import MissingDependencyError
from distspectral.graph.config import GraphConfig
from distspectral.graph.search.local import CellSolver, require, solve_streaming
from distspectral.storage.rows.vectors import ArrayVectors
from tests.datasets import blobs

ROWS, _ = blobs(1500, 6)
IDS = np.arange(1500) * 3 + 1


def exact(rows, k):
    distances = np.square(rows[:, None].astype(np.float64) - rows[None]).sum(axis=2).astype(np.float32)
    np.fill_diagonal(distances, np.inf)
    return np.argsort(distances, axis=1, kind="stable")[:, :k]


def test_exact_solver_returns_global_ids():
    ids, distances, hits, tries = CellSolver("exact", 7, 1.0, 0)(IDS, ROWS)
    np.testing.assert_array_equal(ids, IDS[exact(ROWS, 7)])
    assert (np.diff(distances, axis=1) >= 0).all()
    assert (hits, tries) == (0, 0)


def test_hnsw_reaches_its_target_and_is_repeatable():
    solver = CellSolver("hnsw", 7, 0.97, 0)
    ids, _, hits, tries = solver(IDS, ROWS)
    assert hits >= 0.97 * tries
    found = np.mean([len(set(a) & set(b)) / 7 for a, b in zip(ids, IDS[exact(ROWS, 7)], strict=True)])
    assert found > 0.96
    np.testing.assert_array_equal(solver(IDS, ROWS)[0], ids)


@pytest.mark.slow
def test_nn_descent_reaches_its_target_and_is_repeatable():
    pytest.importorskip("pynndescent")
    solver = CellSolver("nn_descent", 7, 0.97, 0)
    ids, _, hits, tries = solver(IDS, ROWS)
    assert hits >= 0.97 * tries
    found = np.mean([len(set(a) & set(b)) / 7 for a, b in zip(ids, IDS[exact(ROWS, 7)], strict=True)])
    assert found > 0.96
    np.testing.assert_array_equal(solver(IDS, ROWS)[0], ids)


def test_a_solver_that_misses_its_target_gives_way_to_exact_search():
    rows, ids = np.random.default_rng(0).standard_normal((700, 64)).astype(np.float32), IDS[:700]
    _, _, hits, tries = CellSolver("hnsw", 7, target=0.0, seed=0)(ids, rows)
    assert hits < tries, "rows that HNSW finds too few neighbours of"
    found, _, hits, tries = CellSolver("hnsw", 7, target=1.01, seed=0)(ids, rows)
    np.testing.assert_array_equal(found, ids[exact(rows, 7)])
    assert hits == tries > 0


@pytest.mark.parametrize("n_rows", [1, 2, 5])
def test_cells_smaller_than_k_leave_missing_slots(n_rows):
    ids, distances, *_ = CellSolver("exact", 7, 1.0, 0)(IDS[:n_rows], ROWS[:n_rows])
    assert np.isinf(distances[:, n_rows - 1 :]).all()
    assert (ids[:, n_rows - 1 :] == IDS[:n_rows, None]).all()
    assert np.isfinite(distances[:, : n_rows - 1]).all()


def test_a_cell_beyond_memory_is_solved_block_by_block_with_the_same_result():
    members = np.arange(0, 1500, 2)
    ids, distances = solve_streaming(ArrayVectors(ROWS), members, GraphConfig(n_neighbors=7))
    expected, wanted, *_ = CellSolver("exact", 7, 1.0, 0)(members, ROWS[members])
    np.testing.assert_array_equal(ids, expected)
    np.testing.assert_array_equal(distances, wanted)


class FaissWithGpu:
    """FAISS with a GPU that notes what it is asked."""

    StandardGpuResources = object

    def __init__(self):
        self.seen = []

    def __getattr__(self, name):
        return getattr(faiss, name)

    def get_num_gpus(self):
        return 1

    def knn_gpu(self, resources, queries, rows, k, **limits):
        self.seen.append((queries.dtype, rows.dtype, k, float(np.abs(rows).max())))
        distances = np.square(queries[:, None].astype(np.float32) - rows[None].astype(np.float32)).sum(axis=2)
        return None, np.argsort(distances, axis=1, kind="stable")[:, :k]


def test_a_gpu_is_given_halves_and_float32_ranks_what_it_proposes(monkeypatch):
    fake = FaissWithGpu()
    monkeypatch.setitem(sys.modules, "faiss", fake)
    rows = (ROWS * 1e6).astype(np.float32)
    ids, _, _, _ = CellSolver("exact", 7, 1.0, 0)(IDS, rows)
    np.testing.assert_array_equal(ids, IDS[exact(rows, 7)])
    ((queries_dtype, rows_dtype, width, largest),) = fake.seen
    assert (queries_dtype, rows_dtype) == (np.float16, np.float16)
    assert width == 2 * 16, "twice what float32 would be asked for"
    assert largest == pytest.approx(1024, rel=1e-3)


def test_nn_descent_needs_its_package(monkeypatch):
    require("hnsw")
    monkeypatch.setitem(sys.modules, "pynndescent", None)
    with pytest.raises(MissingDependencyError, match=r"graph.solver.*pip install pynndescent") as refused:
        require("nn_descent")
    assert refused.value.parameters == ("graph.solver",)

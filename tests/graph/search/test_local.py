from __future__ import annotations

import sys

import faiss
import numpy as np
import pytest

from distspectral.devices import hidden_gpus
from distspectral.errors import MissingDependencyError, SearchFailedError
from distspectral.graph.config import GraphConfig
from distspectral.graph.search.local import CHECK_ROWS, CellSolver, require, solve_streaming
from distspectral.storage.rows.vectors import ArrayVectors
from tests.datasets import blobs
from tests.graph.search.fake_faiss import FakeFaiss

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


def test_a_gpu_gives_the_same_lists(monkeypatch):
    fake = FakeFaiss()
    monkeypatch.setitem(sys.modules, "faiss", fake)
    solver = CellSolver("exact", 7, 1.0, 0)
    assert solver.is_on_gpu
    ids, distances, hits, tries = solver(IDS, ROWS)
    np.testing.assert_array_equal(ids, IDS[exact(ROWS, 7)])
    assert hits == tries == 7 * CHECK_ROWS
    assert fake.asked == [(np.float16, faiss.METRIC_INNER_PRODUCT, 2 * 16)], "twice what float32 would be asked for"
    with hidden_gpus():
        assert not solver.is_on_gpu
        np.testing.assert_allclose(solver(IDS, ROWS)[1], distances, rtol=1e-6)


def test_a_solver_that_gives_way_to_exact_search_gives_way_to_the_gpu(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", fake := FakeFaiss())
    ids, _, hits, tries = CellSolver("hnsw", 7, target=1.01, seed=0)(IDS, ROWS)
    np.testing.assert_array_equal(ids, IDS[exact(ROWS, 7)])
    assert hits == tries > 0
    assert [dtype for dtype, _, _ in fake.asked] == [np.float32, np.float16], "its check, then all rows"


def test_rows_that_a_device_finds_too_few_neighbours_of_are_searched_again(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", fake := FakeFaiss(missed=(0, 7)))  # the sample does not see them
    ids, distances, hits, tries = CellSolver("exact", 7, 1.0, 0)(IDS, ROWS)
    np.testing.assert_array_equal(ids, IDS[exact(ROWS, 7)])
    assert np.isfinite(distances).all()
    assert hits == tries
    assert [dtype for dtype, _, _ in fake.asked] == [np.float16, np.float32]


@pytest.mark.filterwarnings("ignore:.* encountered in:RuntimeWarning")  # NumPy's own word on it
@pytest.mark.parametrize("n_gpus", [0, 1])
@pytest.mark.parametrize("n_rows", [200, 1500], ids=["no larger than the sample", "larger"])
def test_distances_beyond_float32_are_an_error(monkeypatch, n_gpus, n_rows):
    monkeypatch.setitem(sys.modules, "faiss", FakeFaiss(n_gpus))
    rows = ROWS[:n_rows] * np.float32(1e25)
    with pytest.raises(SearchFailedError, match=f"{n_rows:,} of {n_rows:,} "):
        CellSolver("exact", 7, 1.0, 0)(IDS[:n_rows], rows)


def test_nn_descent_needs_its_package(monkeypatch):
    require("hnsw")
    monkeypatch.setitem(sys.modules, "pynndescent", None)
    with pytest.raises(MissingDependencyError, match=r"graph.solver.*pip install '\.\[cpu\]'") as refused:
        require("nn_descent")
    assert refused.value.parameters == ("graph.solver",)

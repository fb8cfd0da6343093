from __future__ import annotations

import dataclasses
import pickle
import sys

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from distspectral.errors import SearchFailedError
from distspectral.graph.config import GraphConfig
from distspectral.graph.search import exact
from distspectral.graph.search.exact import (
    MARGIN,
    WIDER,
    ExactSolver,
    exact_solver,
    nearest_by_products,
    rows_per_block,
    rows_per_task,
)
from distspectral.storage.rows.vectors import ArrayVectors
from tests.datasets import blobs
from tests.graph.search.fake_faiss import FakeFaiss


def search(rows, k, **changes):
    vectors = ArrayVectors(rows)
    solver = dataclasses.replace(exact_solver(vectors, GraphConfig(n_neighbors=k)), **changes)
    return solver(vectors, 0, len(rows))


def oracle(rows, k):
    """All differences in float64, ties within float32 rounding by id."""
    rows = rows.astype(np.float64)
    distances = np.square(rows[:, None] - rows[None]).sum(axis=2).astype(np.float32)
    np.fill_diagonal(distances, np.inf)
    order = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return order, np.take_along_axis(distances, order, axis=1)


def test_equals_brute_force_of_scikit_learn():
    rows = np.random.default_rng(0).standard_normal((500, 8)).astype(np.float32)
    ids, distances = search(rows, 15)
    expected_distances, expected = NearestNeighbors(n_neighbors=15, algorithm="brute").fit(rows).kneighbors()
    np.testing.assert_array_equal(ids, expected)
    np.testing.assert_allclose(np.sqrt(distances), expected_distances, rtol=1e-5)


@pytest.mark.parametrize("k", [1, 3, 15])
def test_hundreds_of_duplicates_lose_no_neighbours(k):
    rng = np.random.default_rng(1)
    rows = rng.standard_normal((900, 6)).astype(np.float32)
    rows[100:400] = rows[7]
    rows[rng.permutation(900)[:200]] = rows[8]
    ids, distances = search(rows, k)
    expected, expected_distances = oracle(rows, k)
    np.testing.assert_array_equal(ids, expected)
    np.testing.assert_allclose(distances, expected_distances, rtol=1e-5)
    assert not (ids == np.arange(900)[:, None]).any()


def test_equal_rows_only_are_still_neighbours_by_id():
    solver = ExactSolver(3, np.ones(4, np.float32), np.arange(4, 50))
    ids, distances = solver(ArrayVectors(np.ones((50, 4))), 0, 50)
    assert ids[0].tolist() == [1, 2, 3]
    assert ids[2].tolist() == [0, 1, 3]
    assert (ids[4:] == [0, 1, 2]).all()
    assert (distances == 0).all()


def test_ties_of_a_grid_go_to_the_smaller_ids():
    grid = np.stack(np.meshgrid(*[np.arange(5)] * 4), axis=-1).reshape(-1, 4).astype(np.float32)
    ids, distances = search(grid, 10)
    expected, expected_distances = oracle(grid, 10)
    np.testing.assert_array_equal(ids, expected)
    np.testing.assert_array_equal(distances, expected_distances)


def test_more_ties_than_candidates_are_broken_by_id():
    assert WIDER * (4 + 1 + MARGIN) < 199, "products prove nothing, differences decide"
    ids, distances = search(np.eye(200, dtype=np.float32), 4)
    expected, _ = oracle(np.eye(200, dtype=np.float32), 4)
    np.testing.assert_array_equal(ids, expected)
    assert (distances == 2).all()


def test_tight_clusters_far_apart_keep_their_true_neighbours():
    rng = np.random.default_rng(2)
    rows = (1e-3 * rng.standard_normal((400, 16)) + np.where(np.arange(400) % 2, 100, -100)[:, None]).astype(np.float32)
    ids, _ = search(rows, 5)
    np.testing.assert_array_equal(ids, oracle(rows, 5)[0])


@pytest.mark.parametrize("kind", ["smooth", "ties", "duplicates"])
def test_result_does_not_depend_on_how_rows_are_cut(kind):
    rows, _ = blobs(700, 5)
    if kind == "ties":
        rows = np.round(rows / 3)
    if kind == "duplicates":
        rows[50:300] = rows[0]
    vectors = ArrayVectors(rows)
    whole = exact_solver(vectors, GraphConfig(n_neighbors=6))
    expected = whole(vectors, 0, 700)
    for base_rows, task_rows in ((1, 700), (37, 250), (256, 33), (4096, 1)):
        solver = dataclasses.replace(whole, base_rows=base_rows)
        cuts = range(0, 700, task_rows) if task_rows > 1 else range(0, 30)
        parts = [solver(vectors, start, min(start + task_rows, 700)) for start in cuts]
        for position in range(2):
            found = np.concatenate([part[position] for part in parts])
            np.testing.assert_array_equal(found, expected[position][: len(found)])


def test_fewer_rows_than_neighbours_leave_missing_slots():
    ids, distances = ExactSolver(4, np.zeros(2, np.float32), np.empty(0, np.int64))(ArrayVectors(np.eye(2)), 0, 2)
    assert ids.tolist() == [[1, 0, 0, 0], [0, 1, 1, 1]]
    assert np.isinf(distances[:, 1:]).all()


def test_dimension_one_and_wide_vectors_work():
    line = np.arange(30, dtype=np.float32)[:, None] ** 2
    np.testing.assert_array_equal(search(line, 3)[0], oracle(line, 3)[0])
    wide = np.random.default_rng(3).standard_normal((40, 4096)).astype(np.float32)
    np.testing.assert_array_equal(search(wide, 3)[0], oracle(wide, 3)[0])


class ReadVectors(ArrayVectors):
    """Notes the blocks that are read."""

    def __init__(self, rows):
        super().__init__(rows)
        self.reads = []

    def block(self, start, stop):
        self.reads.append((start, stop))
        return super().block(start, stop)


@pytest.mark.parametrize("kind", ["duplicates", "far"])
def test_the_first_products_suffice_for_duplicates_and_far_from_the_origin(kind):
    rows = np.random.default_rng(4).standard_normal((300, 8)).astype(np.float32)
    if kind == "far":
        rows += 1000
    else:
        rows[50:250] = rows[0]
    vectors = ReadVectors(rows)
    solver = exact_solver(vectors, GraphConfig(n_neighbors=7))
    vectors.reads.clear()
    np.testing.assert_array_equal(solver(vectors, 0, 300)[0], oracle(rows, 7)[0])
    assert vectors.reads == [(0, 300), (0, 300)], "queries and base once, no second search"


def test_a_broken_device_is_an_error_not_a_pass_per_row(monkeypatch):
    vectors = ReadVectors(blobs(300, 8)[0])
    solver = exact_solver(vectors, GraphConfig(n_neighbors=7))
    vectors.reads.clear()
    monkeypatch.setitem(sys.modules, "faiss", FakeFaiss(broken=True))
    with pytest.raises(SearchFailedError, match=r"FAISS on the GPU .* 300 of 300 queries.*choose device cpu"):
        solver(vectors, 0, 300)
    assert len(vectors.reads) == 2, "queries, and the base once"


def test_a_row_infinitely_far_from_all_is_named():
    rows = blobs(60, 3)[0]
    rows[17] = 2e19
    with pytest.raises(SearchFailedError, match="1 rows, row 17 first, have fewer than 3"):
        search(rows, 3)


def test_a_row_to_which_a_gpu_names_others_at_infinity_is_named_too(monkeypatch):
    rows = blobs(300, 3)[0]
    rows[17] = 2e19
    monkeypatch.setitem(sys.modules, "faiss", FakeFaiss())
    with np.errstate(over="ignore"), pytest.raises(SearchFailedError, match="1 rows, row 17 first, have fewer than 3"):
        search(rows, 3)


def test_solver_survives_pickling():
    rows, _ = blobs(60, 3)
    solver = exact_solver(ArrayVectors(rows), GraphConfig(n_neighbors=3))
    again = pickle.loads(pickle.dumps(solver))
    np.testing.assert_array_equal(again(ArrayVectors(rows), 5, 9)[0], solver(ArrayVectors(rows), 5, 9)[0])


def test_blocks_follow_from_bytes():
    assert rows_per_block(1 << 24) == 1
    assert rows_per_block(1 << 30) == 1
    assert rows_per_block(64) * 64 * 4 == exact.BLOCK_BYTES
    assert rows_per_task(1000, 64) == exact.MIN_TASK_ROWS
    assert rows_per_task(1 << 30, 64) == rows_per_block(64)


def test_rows_that_bfloat16_cannot_tell_apart_are_searched_in_float32(monkeypatch):
    monkeypatch.setattr("distspectral.graph.search.products.fast_bfloat16", lambda device: True)
    rng = np.random.default_rng(5)
    tight = rng.standard_normal((400, 40)) * 1e-2
    rows = (tight + np.repeat(rng.standard_normal((2, 40)), 200, axis=0)).astype(np.float32)
    neighbors, distances, complete = nearest_by_products(rows, np.arange(400), 7, 16)
    np.testing.assert_array_equal(neighbors, oracle(rows, 7)[0])
    np.testing.assert_allclose(distances, oracle(rows, 7)[1], rtol=1e-5)
    assert complete.all()

from __future__ import annotations

import numpy as np
import pytest
import torch

from distspectral.graph.search.exact import squared_distances
from distspectral.graph.search.lists import top_k
from distspectral.graph.search.ranking import RANK_BYTES, ranked

RNG = np.random.default_rng(0)


def candidates(n_rows, n_queries, n_candidates):
    """Return distinct positions, a tenth of them missing, the query itself sometimes among them."""
    found = np.stack([RNG.permutation(n_rows)[:n_candidates] for _ in range(n_queries)])
    found[RNG.random(found.shape) < 0.1] = -1
    return found


def on_torch(rows, found, own, k):
    return [part.numpy() for part in ranked(*map(torch.from_numpy, (rows, found, own)), k)]


def on_cpu(rows, found, own, k):
    return top_k(found, squared_distances(rows[own], rows, np.maximum(found, 0)), own, k)


@pytest.mark.parametrize("dim", [10, 96, 768])
def test_integers_give_the_same_bits_with_ties_and_missing_candidates(dim):
    rows = RNG.integers(0, 3 if dim < 50 else 2, (120, dim)).astype(np.float32)
    rows[60:] = rows[:60]  # every distance at least twice
    own = np.arange(40)
    found = candidates(120, 40, 60)
    ids, squared = on_torch(rows, found, own, 15)
    expected_ids, expected = on_cpu(rows, found, own, 15)
    np.testing.assert_array_equal(ids, expected_ids)
    np.testing.assert_array_equal(squared, expected)


@pytest.mark.parametrize("dim", [10, 96, 768])
def test_any_values_give_the_same_lists_up_to_the_last_digits(dim):
    rows = RNG.standard_normal((700, dim)).astype(np.float32)
    own = RNG.permutation(700)
    found = candidates(700, 700, 48)
    assert 12 * 768 * found.size > RANK_BYTES, "768 features take several steps"
    ids, squared = on_torch(rows, found, own, 15)
    expected_ids, expected = on_cpu(rows, found, own, 15)
    np.testing.assert_array_equal(ids, expected_ids)
    np.testing.assert_allclose(squared, expected, rtol=1e-6)


def test_distances_are_those_of_float64_rounded_once():
    rows = RNG.standard_normal((50, 768)).astype(np.float32)
    own, found = np.zeros(1, np.int64), np.arange(1, 50)[None]
    ids, squared = on_torch(rows, found, own, 49)
    squares = np.square(rows[ids[0]] - rows[0]).astype(np.float64)
    np.testing.assert_array_equal(squared[0], squares.sum(axis=1).astype(np.float32))


def test_fewer_candidates_than_neighbours_leave_missing_slots():
    rows = np.arange(6, dtype=np.float32)[:, None]
    ids, squared = on_torch(rows, np.array([[2, 0], [-1, 5]]), np.array([0, 4]), 3)
    assert ids.tolist() == [[2, 0, 0], [5, 4, 4]]
    assert squared.tolist() == [[4, np.inf, np.inf], [1, np.inf, np.inf]]


def test_distances_beyond_float32_are_missing():
    rows = np.array([[0], [1e30], [1]], np.float32)
    ids, squared = on_torch(rows, np.array([[1, 2]]), np.array([0]), 2)
    assert ids.tolist() == [[2, 0]]
    assert squared.tolist() == [[1, np.inf]]

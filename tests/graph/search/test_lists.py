from __future__ import annotations

import numpy as np

from distspectral.graph.search.lists import merge_lists, top_k


def merge(ids, distances, own, k):
    return top_k(np.array(ids, np.int64), np.array(distances, np.float32), np.array(own, np.int64), k)


def test_nearest_come_first_and_ties_go_to_the_smaller_id():
    ids, distances = merge([[9, 4, 7, 2]], [[1, 2, 1, 5]], [0], 3)
    assert ids.tolist() == [[7, 9, 4]]
    assert distances.tolist() == [[1, 1, 2]]


def test_order_of_candidates_does_not_matter():
    rng = np.random.default_rng(0)
    ids = np.stack([rng.permutation(50) for _ in range(20)])
    distances = rng.integers(0, 5, ids.shape).astype(np.float32)
    shuffle = rng.permutation(50)
    one = merge(ids, distances, np.arange(20), 7)
    other = merge(ids[:, shuffle], distances[:, shuffle], np.arange(20), 7)
    np.testing.assert_array_equal(one[0], other[0])
    np.testing.assert_array_equal(one[1], other[1])


def test_self_is_dropped_by_id_wherever_it_stands():
    ids, _ = merge([[3, 1, 2], [3, 1, 2]], [[0, 0, 0], [1, 0, 2]], [1, 3], 2)
    assert ids.tolist() == [[2, 3], [1, 2]]


def test_repeated_id_counts_once():
    ids, distances = merge([[5, 6, 5, 6]], [[3, 2, 3, 2]], [0], 3)
    assert ids.tolist() == [[6, 5, 0]]
    assert distances.tolist() == [[2, 3, np.inf]]


def test_ids_beyond_32_bits_give_the_same_lists():
    rng = np.random.default_rng(1)
    ids = rng.integers(-1, 30, (40, 25))
    distances = np.where(ids < 0, 1, (ids * 7 % 5)).astype(np.float32)  # a function of the id: repeats agree
    small = merge(ids, distances, np.arange(40), 6)
    large = merge(np.where(ids < 0, -1, ids + 2**33), distances, np.arange(40) + 2**33, 6)
    np.testing.assert_array_equal(small[0] + 2**33, large[0])
    np.testing.assert_array_equal(small[1], large[1])


def test_lists_of_a_row_become_one():
    rows, ids, distances = merge_lists(
        np.array([4, 2, 4]),
        np.array([[1, 9], [3, 2], [9, 7]]),
        np.array([[0.5, 2], [1, np.inf], [2, 3]], np.float32),
    )
    assert rows.tolist() == [2, 4]
    assert ids.tolist() == [[3, 2], [1, 9]]
    assert distances.tolist() == [[1, np.inf], [0.5, 2]]


def test_lists_that_round_one_distance_differently_bring_one_neighbour():
    above = np.nextafter(np.float32(1), np.float32(2))
    rows, ids, distances = merge_lists(
        np.array([4, 2, 4, 4]),
        np.array([[7, 1], [3, 2], [9, 7], [7, 8]]),
        np.array([[above, 3], [1, np.inf], [0.5, 1], [above, 2]], np.float32),
    )
    assert rows.tolist() == [2, 4]
    assert ids.tolist() == [[3, 2], [9, 7]]
    assert distances.tolist() == [[1, np.inf], [0.5, 1]]
    ids, distances = merge_lists(
        np.array([4, 4]), np.array([[7, 1], [7, 8]]), np.array([[1, 3], [above, 2]], np.float32)
    )[1:]
    assert ids.tolist() == [[7, 8]]
    assert distances.tolist() == [[1, 2]]


def test_missing_neighbours_are_the_row_itself_at_infinity():
    ids, distances = merge([[-1, 8]], [[0, 4]], [2], 4)
    assert ids.tolist() == [[8, 2, 2, 2]]
    assert distances.tolist() == [[4, np.inf, np.inf, np.inf]]

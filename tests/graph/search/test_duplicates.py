from __future__ import annotations

import numpy as np
from scipy import sparse

from distspectral.graph.search.duplicates import row_hashes, surplus_duplicates
from distspectral.storage.rows.sparse import SparseVectors
from distspectral.storage.rows.vectors import ArrayVectors


def test_all_but_the_first_copies_are_surplus():
    rows = np.random.default_rng(0).standard_normal((30, 4)).astype(np.float32)
    rows[[2, 5, 11, 17, 29]] = rows[2]
    surplus, n_distinct = surplus_duplicates(ArrayVectors(rows), 3, block_rows=7)  # copies in different blocks
    assert surplus.tolist() == [17, 29]
    assert n_distinct == 26


def test_small_integers_do_not_collide():
    grid = np.stack(np.meshgrid(*[np.arange(8)] * 5), axis=-1).reshape(-1, 5).astype(np.float32)
    surplus, n_distinct = surplus_duplicates(ArrayVectors(grid), 1)
    assert len(surplus) == 0
    assert n_distinct == 8**5


def test_all_bits_of_a_hash_depend_on_the_row():
    rows = np.arange(1 << 15, dtype=np.float32)[:, None]  # short mantissas: the low bits of the words are zero
    hashes = row_hashes(rows)
    assert len(np.unique(hashes % (1 << 20))) > 0.95 * len(rows)


def test_both_zeros_are_equal():
    surplus, n_distinct = surplus_duplicates(ArrayVectors(np.array([[0.0, 1], [-0.0, 1]])), 1)
    assert surplus.tolist() == [1]
    assert n_distinct == 1


def test_sparse_rows_are_counted_as_dense_ones_are():
    dense = np.random.default_rng(0).integers(0, 2, (200, 6)).astype(np.float32)
    held = sparse.csr_matrix(dense)
    held.data[:3] = 0  # zeros that are held are zeros
    expected = surplus_duplicates(ArrayVectors(held.toarray()), 2)
    surplus, n_distinct = surplus_duplicates(SparseVectors(held), 2)
    np.testing.assert_array_equal(surplus, expected[0])
    assert n_distinct == expected[1] < 200

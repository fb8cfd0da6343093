from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from distspectral.storage.rows.joined import JoinedVectors, sparse_rows
from distspectral.storage.rows.sparse import SparseVectors
from distspectral.storage.rows.vectors import ArrayVectors


@pytest.mark.parametrize("kind", [sparse.csr_matrix, sparse.coo_matrix, sparse.csc_array])
def test_rows_and_moments_are_those_of_the_dense_matrix(kind):
    dense = sparse.random(40, 9, density=0.2, random_state=0).toarray() * 5
    vectors, expected = SparseVectors(kind(dense)), ArrayVectors(dense)
    assert (vectors.n_rows, vectors.dim) == (40, 9)
    np.testing.assert_allclose(vectors.mean, expected.mean, rtol=1e-6)
    assert vectors.scale == pytest.approx(expected.scale, rel=1e-6)
    rows = np.array([3, 39, 3, 0])
    for found, wanted in ((vectors.gather(rows), expected.gather(rows)), (vectors.block(5, 17), expected.block(5, 17))):
        np.testing.assert_array_equal(found, wanted)
        assert found.dtype == np.float32


def test_rows_that_are_not_there_are_refused():
    vectors = SparseVectors(sparse.eye(4))
    for rows in ([4], [-1]):
        with pytest.raises(IndexError, match="rows 0 to 3"):
            vectors.gather(np.array(rows))
    with pytest.raises(IndexError, match="there are 4"):
        vectors.block(2, 5)


def test_entries_in_any_order_and_in_parts_are_one_row_and_the_callers_matrix_stays():
    indices, data = np.array([2, 0, 2, 1]), np.array([1.0, 4.0, 2.0, 5.0], np.float32)
    held = sparse.csr_matrix((data, indices, np.array([0, 3, 4])), (2, 4))
    vectors = SparseVectors(held)
    np.testing.assert_array_equal(vectors.gather(np.array([0, 1])), [[4, 0, 3, 0], [0, 5, 0, 0]])
    assert vectors.matrix().has_canonical_format
    np.testing.assert_array_equal(held.indices, indices)


def test_thin_rows_are_handed_out_as_they_are_held_beside_dense_ones():
    thin, full = sparse.random(9, 40, density=0.05, random_state=0), np.arange(18.0).reshape(9, 2)
    joined = JoinedVectors([ArrayVectors(full), SparseVectors(thin)])
    rows = np.array([3, 0, 3])
    found = sparse_rows(joined, rows)
    np.testing.assert_array_equal(found.toarray(), joined.gather(rows))
    assert sparse_rows(JoinedVectors([ArrayVectors(full)]), rows) is None
    assert sparse_rows(SparseVectors(full), rows) is None, "filled rows are cheaper dense"

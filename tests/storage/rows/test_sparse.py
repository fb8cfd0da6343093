from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

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

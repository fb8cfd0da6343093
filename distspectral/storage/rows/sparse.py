"""Rows of a sparse matrix as vectors: made dense only where they are asked for, a block at a time.

Shape letters: N rows, D features, B rows asked for.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from distspectral.storage.rows.vectors import check_range, check_rows


class SparseVectors:
    """Vectors held as CSR; see :class:`distspectral.storage.rows.vectors.Vectors`.

    Args:
        matrix: (N, D), any sparse format and number type.
    """

    def __init__(self, matrix: sparse.spmatrix) -> None:
        self._matrix = sparse.csr_matrix(matrix, dtype=np.float32)
        self.n_rows, self.dim = self._matrix.shape
        values = self._matrix.astype(np.float64)
        self.mean: NDArray[np.float64] = np.asarray(values.mean(axis=0)).reshape(-1)
        second = np.asarray(values.multiply(values).mean(axis=0)).reshape(-1)
        self.scale = float(np.sqrt(np.maximum(second - self.mean**2, 0).mean()))

    def gather(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the rows (B, D) as a fresh dense copy."""
        check_rows(rows, self.n_rows)
        dense: NDArray[np.float32] = self._matrix[rows].toarray()
        return dense

    def block(self, start: int, stop: int) -> NDArray[np.float32]:
        """Return consecutive rows as a dense copy."""
        check_range(start, stop, self.n_rows)
        dense: NDArray[np.float32] = self._matrix[start:stop].toarray()
        return dense

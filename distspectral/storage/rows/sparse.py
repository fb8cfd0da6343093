"""Rows of a sparse matrix as vectors: handed out as they are held, or made dense where that is asked for.

Shape letters: N rows, D features, B rows asked for.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from distspectral.storage.rows.vectors import check_range, check_rows

THIN = 16
"""One entry in so many: a product with sparse rows makes about so many times fewer multiplications a second."""


class SparseVectors:
    """Vectors held as CSR; see :class:`distspectral.storage.rows.vectors.Vectors`.

    Args:
        matrix: (N, D), any sparse format and number type.
    """

    def __init__(self, matrix: sparse.spmatrix) -> None:
        held = sparse.csr_matrix(matrix, dtype=np.float32)
        if not held.has_canonical_format:
            held = held.copy()  # it may be the caller's
            held.sum_duplicates()
        self._matrix = held
        self.n_rows, self.dim = self._matrix.shape
        values = self._matrix.astype(np.float64)
        self.mean: NDArray[np.float64] = np.asarray(values.mean(axis=0)).reshape(-1)
        second = np.asarray(values.multiply(values).mean(axis=0)).reshape(-1)
        self.variances: NDArray[np.float64] = np.maximum(second - self.mean**2, 0)
        self.scale = float(np.sqrt(self.variances.mean()))

    @property
    def is_thin(self) -> bool:
        """Whether a product with the rows as they are held is cheaper than one with dense rows."""
        return bool(self._matrix.nnz <= self.n_rows * self.dim // THIN)

    def matrix(self, rows: NDArray[np.int64] | slice = slice(None)) -> sparse.csr_matrix:
        """Return rows (B, D) float32 as they are held, columns ascending; by default all."""
        return self._matrix[rows]

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

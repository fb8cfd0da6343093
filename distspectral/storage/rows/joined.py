"""Several vectors of the same rows, side by side: what a network sees when it sees codes and features together.

Shape letters: N rows, D features of all parts together, B rows asked for.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.rows.sparse import SparseVectors
from distspectral.storage.rows.vectors import ArrayVectors, MappedVectors, Vectors


class JoinedVectors:
    """The features of all parts in one row; nothing is copied until rows are asked for.

    Args:
        parts: at least one, all over the same N rows.
    """

    def __init__(self, parts: Sequence[Vectors]) -> None:
        assert len({part.n_rows for part in parts}) == 1, [part.n_rows for part in parts]
        self.parts = tuple(parts)
        self.n_rows, self.dim = parts[0].n_rows, sum(part.dim for part in parts)
        self.mean = np.concatenate([part.mean for part in parts])
        self.scale = np.concatenate([np.broadcast_to(part.scale, part.dim) for part in parts])

    def gather(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the rows as a fresh copy; see :meth:`distspectral.storage.rows.vectors.Vectors.gather`."""
        return np.concatenate([part.gather(rows) for part in self.parts], axis=1)

    def block(self, start: int, stop: int) -> NDArray[np.float32]:
        """Return consecutive rows as a copy; see :meth:`distspectral.storage.rows.vectors.Vectors.block`."""
        return np.concatenate([part.block(start, stop) for part in self.parts], axis=1)


def subset(vectors: Vectors, rows: NDArray[np.int64]) -> Vectors:
    """Return some rows (B, D) as vectors in memory, sparse where products with sparse rows are cheaper.

    Args:
        vectors: (N, D).
        rows: (B,) row numbers.
    """
    thin = sparse_rows(vectors, rows)
    return ArrayVectors(vectors.gather(rows)) if thin is None else SparseVectors(thin)


def sparse_rows(vectors: Vectors, rows: NDArray[np.int64]) -> sparse.csr_matrix | None:
    """Return rows (B, D) as they are held where a product with sparse rows is cheaper; None where it is not.

    Args:
        vectors: (N, D); of joined ones, dense parts stand beside sparse ones.
        rows: (B,) row numbers.
    """
    if isinstance(vectors, SparseVectors):
        return vectors.matrix(rows) if vectors.is_thin else None
    if isinstance(vectors, JoinedVectors):
        found = [sparse_rows(part, rows) for part in vectors.parts]
        if any(part is not None for part in found):
            parts = zip(vectors.parts, found, strict=True)
            return sparse.hstack([dense.gather(rows) if thin is None else thin for dense, thin in parts], format="csr")
    return None


def open_vectors(artifacts: Sequence[Artifact], only: str | None = None) -> MappedVectors | JoinedVectors:
    """Return the rows of one finished ``vectors`` artifact, or of several side by side.

    Args:
        artifacts: at least one, shards of the same names and rows.
        only: the one shard to open; default all.

    Raises:
        MissingArtifactError: one of them is not finished.
    """
    parts = [MappedVectors(artifact, only=only) for artifact in artifacts]
    return parts[0] if len(parts) == 1 else JoinedVectors(parts)

"""Rows that exist more often than any neighbour list can show need not be searched.

Of equal rows only the k + 1 with the lowest ids can be anyone's neighbours, since ties are broken by id. Leaving
the others out of the base keeps thousands of duplicates from crowding out all other candidates.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from distspectral.storage.rows.sparse import SparseVectors
from distspectral.storage.rows.vectors import Vectors

HASH_SEED = 20180213
BLOCK_BYTES = 1 << 26
CACHED_BYTES = 1 << 18
MIX = np.uint64(0x9E3779B97F4A7C15)


def surplus_duplicates(vectors: Vectors, n_kept: int, block_rows: int | None = None) -> tuple[NDArray[np.int64], int]:
    """Return the rows that have ``n_kept`` or more equal rows before them, and the number of distinct rows.

    Rows are compared by a 64-bit hash (two different rows share one with probability about 2^-64), in one streaming
    pass that keeps 8 bytes a row.

    Args:
        vectors: (N, D).
        n_kept: how many of equal rows stay.
        block_rows: rows read at a time; by default 64 MiB of float64.

    Returns:
        surplus: (S,) int64, ascending.
        n_distinct: how many different rows there are.
    """
    if isinstance(vectors, SparseVectors):
        surplus, _, n_distinct = crowd(sparse_row_hashes(vectors.matrix()), n_kept)
        return surplus, n_distinct
    hashes = np.empty(vectors.n_rows, np.uint64)
    block_rows = block_rows or max(1, BLOCK_BYTES // (8 * vectors.dim))
    for start in range(0, vectors.n_rows, block_rows):
        stop = min(start + block_rows, vectors.n_rows)
        hashes[start:stop] = row_hashes(vectors.block(start, stop))
    surplus, _, n_distinct = crowd(hashes, n_kept)
    return surplus, n_distinct


def crowd(hashes: NDArray[np.uint64], n_kept: int) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """Return which rows have ``n_kept`` or more equal rows before them.

    Args:
        hashes: (B,) of :func:`row_hashes`.
        n_kept: how many of equal rows stay.

    Returns:
        surplus: (S,) positions, ascending.
        first: (S,) position of the first of each one's equals.
        n_distinct: how many different rows there are.
    """
    order = np.argsort(hashes, kind="stable")
    is_first = np.ones(len(order), bool)
    is_first[1:] = np.diff(hashes[order]) != 0
    run_starts = np.flatnonzero(is_first)
    lengths = np.diff(run_starts, append=len(order))
    rank = np.arange(len(order)) - np.repeat(run_starts, lengths)
    late = rank >= n_kept
    surplus, first = order[late], order[np.repeat(run_starts, lengths)[late]]
    ascending = np.argsort(surplus)
    return surplus[ascending], first[ascending], len(run_starts)


def row_hashes(block: NDArray[np.float32]) -> NDArray[np.uint64]:
    """Return a 64-bit hash (B,) of each row (B, D); equal rows have equal ones."""
    dim = block.shape[1]
    drawn = np.random.default_rng(HASH_SEED).integers(0, 1 << 63, -(-dim // 2), dtype=np.uint64)
    factors: NDArray[np.uint64] = np.asarray(drawn * 2 + 1, np.uint64)
    hashes = np.empty(len(block), np.uint64)
    step = max(1, CACHED_BYTES // (4 * dim))
    for start in range(0, len(block), step):
        rows = block[start : start + step]
        padded = np.zeros((len(rows), 2 * len(factors)), np.float32)
        np.add(rows, np.float32(0), out=padded[:, :dim])  # + 0: one sign of zero
        words = padded.view(np.uint64)
        words *= MIX
        words ^= words >> np.uint64(32)  # the low bits of short mantissas are zero: bring the high ones down
        words *= MIX
        words ^= words >> np.uint64(29)
        words *= factors
        hashes[start : start + step] = words.sum(axis=1, dtype=np.uint64)
    return hashes


def sparse_row_hashes(matrix: sparse.csr_matrix) -> NDArray[np.uint64]:
    """Return a 64-bit hash (B,) of each row (B, D) float32 whose entries are ascending and each once."""
    factors = np.random.default_rng(HASH_SEED).integers(0, 1 << 63, matrix.shape[1], dtype=np.uint64) * 2 + 1
    words = (matrix.data + np.float32(0)).view(np.uint32) * MIX  # a zero that is held adds what one that is not does
    words ^= words >> np.uint64(32)
    words *= MIX
    words ^= words >> np.uint64(29)
    hashes: NDArray[np.uint64] = sparse.csr_matrix((words, matrix.indices, matrix.indptr), matrix.shape) @ factors
    return hashes

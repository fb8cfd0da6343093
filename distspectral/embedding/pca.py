"""Principal components of all rows as a linear autoencoder: an encoder that nothing trains.

Narrow rows are told by the covariance of their features, summed in one pass. Of wider ones a sample is, by the inner
products of its rows, for either matrix has the same eigenvalues. Sums are float64 and added up in row order, so they
depend neither on shards nor on workers.

Shape letters: N rows, D features, S sampled rows, B rows of a task, E components.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import scipy.linalg
import torch
from numpy.typing import NDArray
from pydantic import Field, PositiveInt
from scipy import sparse

from distspectral.embedding.forward import rows_of_block
from distspectral.frozen import FrozenModel
from distspectral.mapping import Mapper, in_order, local_map
from distspectral.models.autoencoder import Autoencoder
from distspectral.storage.rows.joined import sparse_rows
from distspectral.storage.rows.vectors import Vectors

WIDEST = 1 << 13
"""Features whose covariance, of 512 MiB, is summed."""
MOST_SAMPLED, SAMPLE_BYTES = 1 << 13, 1 << 30
"""Rows of a sample of wider ones, at most, and bytes of them where they are dense."""
LEAST_ROWS, MOST_TASKS = 1 << 13, 64
"""Rows of a task, at least, and tasks: each returns a matrix (D, D)."""
SUMMING = "summing a covariance"


class PcaConfig(FrozenModel):
    """Principal components (YAML section ``pca``)."""

    n_components: PositiveInt = Field(
        50, description="components kept with representation: pca; at most as many as rows have features, and differ in"
    )


def principal_components(vectors: Vectors, n_components: int, seed: int = 0, mapper: Mapper = local_map) -> Autoencoder:
    """Return the best linear autoencoder of the rows: (x - mean) / scale to its E coordinates, and back.

    The components are orthonormal, by descending variance, the largest entry of each positive. Directions in which the
    rows do not differ are left empty.

    Args:
        vectors: (N, D), of which some must differ; picklable where the mapper needs it.
        n_components: E, at most; D and N - 1 are the others.
        seed: of the sample of rows wider than :data:`WIDEST`.
        mapper: runs the tasks.
    """
    n_kept = max(1, min(n_components, vectors.dim, vectors.n_rows - 1))
    find = _of_covariance if vectors.dim <= WIDEST else functools.partial(_of_sample, seed=seed)
    axes = find(vectors, n_kept, mapper=mapper)
    axes *= np.sign(axes[np.arange(n_kept), np.abs(axes).argmax(axis=1)])[:, None]
    model = Autoencoder(vectors.dim, n_kept, ())
    model.encoder.standardize_by(vectors.mean, vectors.scale)
    with torch.no_grad():
        for half, weight in ((model.encoder, axes), (model.decoder, axes.T)):
            half.head.weight.copy_(torch.from_numpy(weight))
            half.head.bias.zero_()
    return model.eval()


def _of_covariance(vectors: Vectors, n_kept: int, *, mapper: Mapper) -> NDArray[np.float64]:
    """Return the components (E, D) of all rows."""
    step = max(LEAST_ROWS, -(-vectors.n_rows // MOST_TASKS))
    ranges = [(start, min(start + step, vectors.n_rows)) for start in range(0, vectors.n_rows, step)]
    total = np.zeros((vectors.dim, vectors.dim))
    for scatter in in_order(mapper, functools.partial(_scatter, vectors=vectors), ranges, SUMMING):
        total += scatter
    values, axes = scipy.linalg.eigh(total, subset_by_index=(vectors.dim - n_kept, vectors.dim - 1), overwrite_a=True)
    return np.where(_differ(values), axes, 0).T[::-1].copy()


def _of_sample(vectors: Vectors, n_kept: int, *, mapper: Mapper, seed: int) -> NDArray[np.float64]:
    """Return the components (E, D) of sampled rows: X' u / sqrt(value) for u an eigenvector of X X'."""
    thin = sparse_rows(vectors, np.arange(0)) is not None
    most = MOST_SAMPLED if thin else min(MOST_SAMPLED, SAMPLE_BYTES // (8 * vectors.dim))
    n_sampled = min(vectors.n_rows, max(most, n_kept + 1))
    rows = np.sort(np.random.default_rng(seed).choice(vectors.n_rows, n_sampled, replace=False))
    parts = np.array_split(rows, min(MOST_TASKS, n_sampled))
    found = list(in_order(mapper, functools.partial(_gathered, vectors=vectors), parts, "reading a sample"))
    sample = (sparse.vstack(found, format="csr") if thin else np.concatenate(found)).astype(np.float64)
    mean = np.asarray(sample.mean(axis=0)).reshape(-1)
    products: Any = sample @ sample.T
    along = np.asarray(sample @ mean).reshape(-1)
    inner = (products.toarray() if thin else products) - along - along[:, None] + mean @ mean
    values, vectors_of_rows = scipy.linalg.eigh(inner, subset_by_index=(n_sampled - n_kept, n_sampled - 1))
    kept = _differ(values)
    lengths = np.sqrt(np.where(kept, values, 1))
    axes = np.asarray(sample.T @ vectors_of_rows) - np.outer(mean, vectors_of_rows.sum(axis=0))
    return (np.where(kept, axes, 0) / lengths).T[::-1].copy()


def _differ(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which eigenvalues are more than rounding of the largest."""
    different: NDArray[np.bool_] = values > values[-1] * len(values) * np.finfo(np.float64).eps
    return different


# ---- tasks -------------------------------------------------------------------------------------------------------


def _scatter(rows: tuple[int, int], *, vectors: Vectors) -> NDArray[np.float64]:
    """Return the sum over rows of (x - mean) (x - mean)', (D, D)."""
    start, stop = rows
    total = np.zeros((vectors.dim, vectors.dim))
    step = rows_of_block(vectors.dim)
    for first in range(start, stop, step):
        last = min(first + step, stop)
        thin = sparse_rows(vectors, np.arange(first, last))
        if thin is None:
            centred = vectors.block(first, last) - vectors.mean
            total += centred.T @ centred
        else:
            raw = thin.astype(np.float64)
            along = np.outer(np.asarray(raw.sum(axis=0)).reshape(-1), vectors.mean)
            total += (raw.T @ raw).toarray() - along - along.T + (last - first) * np.outer(vectors.mean, vectors.mean)
    return total


def _gathered(rows: NDArray[np.int64], *, vectors: Vectors) -> NDArray[np.float32] | sparse.csr_matrix:
    thin = sparse_rows(vectors, rows)
    return vectors.gather(rows) if thin is None else thin

"""FAISS with a GPU, as far as this package uses one; everything else is the real module's.

What it takes from the real one, and where that stands in FAISS's repository:

- ``knn_gpu`` takes float32 or float16 and returns float32 and int64 (faiss/python/gpu_wrappers.py); both sides must be
  of one type, and blocks of limited memory must be contiguous by rows (faiss/gpu/GpuDistance.cu).
- Squared norms: every value is squared in its own type, ``Math<half2>::mul``, and the sum is float32
  (``l2NormRowMajor`` in faiss/gpu/impl/L2Norm.cu). In float16 the square of 256 is infinite.
- Products of halves are summed in float32 (faiss/gpu/utils/MatrixMult-inl.cuh).
- Selection begins with the largest finite float at position -1, so that infinity and NaN are never found, and takes at
  most 2,048 (faiss/gpu/utils/Limits.cuh, faiss/gpu/impl/L2Select.cu, faiss/gpu/utils/DeviceDefs.cuh).
- A device without memory raises RuntimeError (faiss/gpu/StandardGpuResources.cpp).
"""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

LARGEST = np.finfo(np.float32).max


class FakeFaiss:
    """A module ``faiss`` for GPUs.

    Args:
        n_gpus: how many there are.
        capacity_bytes: memory for either side of a search.
        message: of the error where that does not suffice.
        broken: whether the device computes nothing but NaN.
        missed: queries of which it does so when they are halves.

    Attributes:
        asked: dtype, metric and k of each search that was tried.
        limits: of memory, of each search that was tried.
        n_resources: how often FAISS's resources were made.
    """

    def __init__(
        self,
        n_gpus: int = 1,
        capacity_bytes: int = 1 << 40,
        message: str = "cudaMalloc error out of memory",
        *,
        broken: bool = False,
        missed: tuple[int, ...] = (),
    ) -> None:
        self.n_gpus, self.capacity_bytes, self.message = n_gpus, capacity_bytes, message
        self.broken, self.missed = broken, list(missed)
        self.asked: list[tuple[Any, int, int]] = []
        self.limits: list[int] = []
        self.n_resources = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(faiss, name)

    def StandardGpuResources(self) -> object:
        self.n_resources += 1
        return object()

    def get_num_gpus(self) -> int:
        return self.n_gpus

    def knn_gpu(
        self,
        resources: object,
        queries: NDArray[Any],
        base: NDArray[Any],
        k: int,
        *,
        metric: int = faiss.METRIC_L2,
        vectorsMemoryLimit: int = 0,
        queriesMemoryLimit: int = 0,
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        self.asked.append((base.dtype.type, metric, k))
        self.limits.append(vectorsMemoryLimit)
        for side, limit in ((queries, queriesMemoryLimit), (base, vectorsMemoryLimit)):
            assert side.dtype in (np.float32, np.float16)
            assert side.flags.c_contiguous
            if min(side.nbytes, limit or side.nbytes) > self.capacity_bytes:
                raise RuntimeError(self.message)
        assert queries.dtype == base.dtype, "limitation: both vectorType and queryType must currently be the same"
        assert queries.shape[1] == base.shape[1]
        assert k <= 2048, "GPU_MAX_SELECTION_K"
        if vectorsMemoryLimit:
            assert vectorsMemoryLimit >= base.strides[0], "vectorsMemoryLimit is too low"
            assert queriesMemoryLimit >= queries.strides[0] + k * (queries.itemsize + 8), (
                "queriesMemoryLimit is too low"
            )
        of_query = np.zeros((len(queries), 1), np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            scores = -(queries.astype(np.float32) @ base.astype(np.float32).T)
            if metric == faiss.METRIC_L2:
                scores, of_query = _squared_norms(base) + 2 * scores, _squared_norms(queries)[:, None]
        if self.broken:
            scores[:] = np.nan
        if base.dtype == np.float16:
            scores[self.missed] = np.nan
        positions = np.argsort(scores, axis=1, kind="stable")[:, :k]
        best = np.take_along_axis(scores, positions, axis=1)
        missing = ~(best < LARGEST)
        best, positions = np.where(missing, LARGEST, best), np.where(missing, -1, positions)
        pad = ((0, 0), (0, k - best.shape[1]))
        best, positions = np.pad(best, pad, constant_values=LARGEST), np.pad(positions, pad, constant_values=-1)
        return (np.maximum(best + of_query, 0) if metric == faiss.METRIC_L2 else -best), positions.astype(np.int64)


def _squared_norms(rows: NDArray[Any]) -> NDArray[np.float32]:
    return np.asarray((rows * rows).astype(np.float32).sum(axis=1))

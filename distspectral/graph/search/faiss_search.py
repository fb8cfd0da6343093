"""Where a block of queries meets a block of base vectors: FAISS on the CPU or on a GPU, behind one signature.

Shape letters: Q queries, B base vectors, D features, K neighbours.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from distspectral.devices import gpus_are_hidden
from distspectral.errors import ConfigError, MissingDependencyError

logger = logging.getLogger(__name__)

Device = Literal["auto", "cpu", "cuda"]
Search = Callable[
    [NDArray[np.floating[Any]], NDArray[np.floating[Any]], int], tuple[NDArray[np.float32], NDArray[np.int64]]
]  # (queries, base, k) -> squared distances, positions in base
PRODUCTS = {
    "distance_compute_blas_threshold": 20,
    "distance_compute_blas_query_bs": 256,
    "distance_compute_blas_database_bs": 4096,
}
"""Queries from which FAISS multiplies matrices, and its blocks. Its own defaults took 45 ns a pair for 1,000 queries
against 60,000 rows of 96 features where these take 5 (AVX-512 Xeon, faiss-cpu 1.15.1)."""
SMALLEST_GPU_BLOCK_BYTES = 1 << 20
BLOCK_SHARE = 0.3
"""Of free GPU memory for queries and for base each; the rest is for distances and FAISS's own buffers."""

_lock = threading.Lock()
_replaced: list[dict[str, int]] = []
"""The caller's own values of ``PRODUCTS``, once for each search that is under way in any thread."""


def import_faiss() -> Any:
    """Return the module ``faiss``.

    Raises:
        MissingDependencyError: neither faiss-cpu nor faiss-gpu is installed.
    """
    try:
        import faiss
    except ImportError as error:
        raise MissingDependencyError(
            "faiss is not installed: pip install 'distspectral[cpu]' (or 'distspectral[gpu]' with CUDA)"
        ) from error
    return faiss


@contextlib.contextmanager
def fast_products() -> Iterator[Any]:
    """Yield the module ``faiss``, whose exhaustive searches go by ``PRODUCTS`` until the context is left.

    FAISS has one set of these values for the whole process. They are the caller's again when the last of our searches
    ends, whichever thread it is in; a search of the caller's own in another thread meanwhile goes by ours.

    Raises:
        MissingDependencyError: neither faiss-cpu nor faiss-gpu is installed.
    """
    faiss = import_faiss()
    with _lock:
        _replaced.append(_replaced[0] if _replaced else {name: getattr(faiss.cvar, name) for name in PRODUCTS})
        _set(faiss, PRODUCTS)
    try:
        yield faiss
    finally:
        with _lock:
            own = _replaced.pop()
            if not _replaced:
                _set(faiss, own)


def _set(faiss: Any, values: dict[str, int]) -> None:
    for name, value in values.items():
        setattr(faiss.cvar, name, value)


def knn(
    queries: NDArray[np.floating[Any]], base: NDArray[np.floating[Any]], k: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the K nearest of (B, D) base vectors to (Q, D) queries, on the CPU: squared distances and positions."""
    with fast_products() as faiss:
        found: tuple[NDArray[np.float32], NDArray[np.int64]] = faiss.knn(queries, base, k)
    return found


def uses_gpu(device: Device) -> bool:
    """Whether a search on this device would run on a GPU."""
    return _may_use_gpu(device) and bool(_n_gpus(import_faiss()))


def _may_use_gpu(device: Device) -> bool:
    return device == "cuda" or (device == "auto" and not gpus_are_hidden())


def _n_gpus(faiss: Any) -> int | None:
    """Return how many GPUs FAISS finds, None where it is built for CPUs only."""
    return faiss.get_num_gpus() if hasattr(faiss, "StandardGpuResources") else None


def select_search(device: Device) -> Search:
    """Return the search for a device.

    Args:
        device: ``auto`` takes a GPU if FAISS is built for GPUs and one is there.

    Raises:
        MissingDependencyError: FAISS is not installed, or ``cuda`` is asked of a FAISS without GPU support.
        ConfigError: ``cuda`` is asked of a machine without a GPU.
    """
    faiss = import_faiss()
    n_gpus = _n_gpus(faiss)
    if device == "cuda" and n_gpus is None:
        raise MissingDependencyError(
            "the search's device is cuda, but the installed faiss has no GPU support: pip uninstall faiss-cpu, "
            "then pip install 'distspectral[gpu]'; or choose device auto"
        )
    if device == "cuda" and not n_gpus:
        raise ConfigError("the search's device is cuda, but FAISS finds no GPU on this machine; choose auto or cpu")
    return GpuSearch(faiss) if _may_use_gpu(device) and n_gpus else knn


def free_gpu_bytes() -> int | None:
    """Return the free memory of the current GPU, None where torch sees no GPU."""
    import torch

    return torch.cuda.mem_get_info()[0] if torch.cuda.is_available() else None


class GpuSearch:
    """Brute force on one GPU, in blocks of a share of its free memory; out of memory, it halves them.

    Args:
        faiss: the module, so that tests can hand in another one.
        free_bytes: returns the device's free memory, None where nobody knows.
    """

    def __init__(self, faiss: Any, free_bytes: Callable[[], int | None] | None = None) -> None:
        self._faiss = faiss
        self._resources = faiss.StandardGpuResources()
        free = (free_bytes or free_gpu_bytes)()
        self._limit_bytes = 0 if free is None else int(free * BLOCK_SHARE)  # of either side; 0: no limit

    def __call__(
        self, queries: NDArray[np.floating[Any]], base: NDArray[np.floating[Any]], k: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return the k nearest base vectors of each query: squared distances and positions, both (B, k).

        Both sides float32, or both float16: half the memory and, on tensor cores, a multiple of the speed.

        Raises:
            ConfigError: out of memory even with the smallest blocks.
        """
        smallest = max(SMALLEST_GPU_BLOCK_BYTES, k * base.shape[1] * base.itemsize)
        while True:
            try:
                distances, positions = self._faiss.knn_gpu(
                    self._resources,
                    queries,
                    base,
                    k,
                    vectorsMemoryLimit=self._limit_bytes,
                    queriesMemoryLimit=self._limit_bytes,
                )
                return distances, positions
            except (RuntimeError, MemoryError) as error:
                if isinstance(error, RuntimeError) and "out of memory" not in str(error).lower():
                    raise
                limit = (self._limit_bytes or max(queries.nbytes, base.nbytes)) // 2
                if limit < smallest:
                    raise ConfigError(
                        f"the search's GPU is out of memory even with blocks of {2 * limit:,} bytes; free it from "
                        "other processes or choose device cpu"
                    ) from error
                logger.warning("GPU out of memory: searching on with blocks of %s bytes", f"{limit:,}")
                self._limit_bytes = limit

"""Where a block of queries meets a block of base vectors: FAISS on the CPU or on a GPU, behind one signature.

Shape letters: Q queries, B base vectors, D features, K neighbours.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from distspectral.devices import gpus_are_hidden
from distspectral.errors import ConfigError, MissingDependencyError, SearchFailedError

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
        raise MissingDependencyError("faiss is not installed: pip install '.[cpu]' (or '.[gpu]' with CUDA)") from error
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
    """Return the K nearest of (B, D) base vectors to (Q, D) queries, on the CPU: squared distances and positions.

    Raises:
        SearchFailedError: distances are not finite.
    """
    with fast_products() as faiss:
        distances, positions = faiss.knn(queries, base, k)
    return _found(distances, positions, len(base), "CPU")


def _found(
    distances: NDArray[np.float32], positions: NDArray[np.int64], n_base: int, device: str
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return a search's result, refused where it names fewer vectors than there are: FAISS drops infinities and NaN."""
    short = np.flatnonzero(positions[:, -1] < 0)
    if len(short) and positions.shape[1] <= n_base:
        raise SearchFailedError(
            f"FAISS on the {device} found fewer than {positions.shape[1]} of {n_base:,} vectors for {len(short):,} of "
            f"{len(positions):,} queries, query {short[0]} first, so distances were infinite or NaN; where vectors are "
            "not as large as 1e18, FAISS or its device is broken: choose device cpu"
        )
    return distances, positions


def uses_gpu(device: Device) -> bool:
    """Whether a search on this device would run on a GPU."""
    return _may_use_gpu(device) and bool(_n_gpus(import_faiss()))


def _may_use_gpu(device: Device) -> bool:
    return device == "cuda" or (device == "auto" and not gpus_are_hidden())


def _n_gpus(faiss: Any) -> int | None:
    """Return how many GPUs FAISS finds, None where it is built for CPUs only."""
    return faiss.get_num_gpus() if hasattr(faiss, "StandardGpuResources") else None


def select_search(device: Device) -> Search:
    """Return the search for a device; see :func:`gpu_search` for what it raises."""
    return gpu_search(device) or knn


def gpu_search(device: Device) -> GpuSearch | None:
    """Return the search on the GPU, the same one throughout the process, None where the device means the CPU.

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
            "then pip install '.[gpu]'; or choose device auto"
        )
    if device == "cuda" and not n_gpus:
        raise ConfigError("the search's device is cuda, but FAISS finds no GPU on this machine; choose auto or cpu")
    return _shared(faiss) if _may_use_gpu(device) and n_gpus else None


def free_gpu_bytes() -> int | None:
    """Return the free memory of the current GPU, None where torch sees no GPU."""
    import torch

    return torch.cuda.mem_get_info()[0] if torch.cuda.is_available() else None


class GpuSearch:
    """Brute force on one GPU, in blocks of a share of the memory that is free then; out of memory, it halves them.

    FAISS's resources, 256 MiB of pinned memory and a cuBLAS handle, are not to be used by two threads at once.

    Args:
        faiss: the module, so that tests can hand in another one.
        free_bytes: returns the device's free memory, None where nobody knows.
    """

    def __init__(self, faiss: Any, free_bytes: Callable[[], int | None] | None = None) -> None:
        self._faiss = faiss
        self._resources = faiss.StandardGpuResources()
        self._free_bytes = free_bytes or free_gpu_bytes
        self._turn = threading.Lock()

    def __call__(
        self, queries: NDArray[np.floating[Any]], base: NDArray[np.floating[Any]], k: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return the k nearest base vectors of each query: squared distances and positions, both (Q, k).

        Args:
            queries: (Q, D) float32, contiguous.
            base: (B, D) float32, contiguous.
            k: at most 2,048.

        Raises:
            ConfigError: out of memory even with the smallest blocks.
            SearchFailedError: distances are not finite.
        """
        return _found(*self._knn(queries, base, k, self._faiss.METRIC_L2), len(base), "GPU")

    def largest_products(self, queries: NDArray[np.float16], base: NDArray[np.float16], k: int) -> NDArray[np.int64]:
        """Return positions (Q, k) of the base vectors with the largest products, -1 where there are none.

        Halves take half the memory and, on tensor cores, a fraction of the time. FAISS sums their products in float32.

        Raises:
            ConfigError: out of memory even with the smallest blocks.
        """
        return self._knn(queries, base, k, self._faiss.METRIC_INNER_PRODUCT)[1]

    def _knn(
        self, queries: NDArray[np.floating[Any]], base: NDArray[np.floating[Any]], k: int, metric: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        smallest = max(SMALLEST_GPU_BLOCK_BYTES, k * base.shape[1] * base.itemsize)
        free = self._free_bytes()
        limit = 0 if free is None else max(int(free * BLOCK_SHARE), smallest)  # of either side; 0: none
        while True:
            try:
                with self._turn:
                    distances, positions = self._faiss.knn_gpu(
                        self._resources,
                        queries,
                        base,
                        k,
                        metric=metric,
                        vectorsMemoryLimit=limit,
                        queriesMemoryLimit=limit,
                    )
                return distances, positions
            except (RuntimeError, MemoryError) as error:
                if isinstance(error, RuntimeError) and "out of memory" not in str(error).lower():
                    raise
                limit = (limit or max(queries.nbytes, base.nbytes)) // 2
                if limit < smallest:
                    raise ConfigError(
                        f"the search's GPU is out of memory even with blocks of {2 * limit:,} bytes; free it from "
                        "other processes or choose device cpu"
                    ) from error
                logger.warning("GPU out of memory: searching on with blocks of %s bytes", f"{limit:,}")


_shared = functools.cache(GpuSearch)

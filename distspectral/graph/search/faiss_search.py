"""Where a block of queries meets a block of base vectors: FAISS on the CPU or on a GPU, behind one signature."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from distspectral.errors import ConfigError, MissingDependencyError

logger = logging.getLogger(__name__)

Device = Literal["auto", "cpu", "cuda"]
Search = Callable[
    [NDArray[np.floating[Any]], NDArray[np.floating[Any]], int], tuple[NDArray[np.float32], NDArray[np.int64]]
]  # (queries, base, k) -> squared distances, positions in base
PRODUCT_ROWS, QUERY_ROWS, BASE_ROWS = 20, 256, 4096
"""Queries from which FAISS multiplies matrices, and its blocks. Its own defaults took 45 ns a pair for 1,000 queries
against 60,000 rows of 96 features where these take 5 (AVX-512 Xeon, faiss-cpu 1.15.1)."""
SMALLEST_GPU_BLOCK_BYTES = 1 << 20
BLOCK_SHARE = 0.3
"""Of free GPU memory for queries and for base each; the rest is for distances and FAISS's own buffers."""


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
    faiss.cvar.distance_compute_blas_threshold = PRODUCT_ROWS
    faiss.cvar.distance_compute_blas_query_bs = QUERY_ROWS
    faiss.cvar.distance_compute_blas_database_bs = BASE_ROWS
    return faiss


def uses_gpu(device: Device) -> bool:
    """Whether a search on this device would run on a GPU."""
    faiss = import_faiss()
    return device != "cpu" and hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus() > 0


def select_search(device: Device) -> Search:
    """Return the search for a device.

    Args:
        device: ``auto`` takes a GPU if FAISS is built for GPUs and one is there.

    Raises:
        MissingDependencyError: FAISS is not installed, or ``cuda`` is asked of a FAISS without GPU support.
        ConfigError: ``cuda`` is asked of a machine without a GPU.
    """
    faiss = import_faiss()
    has_support = hasattr(faiss, "StandardGpuResources")
    has_device = has_support and faiss.get_num_gpus() > 0
    if device == "cuda" and not has_support:
        raise MissingDependencyError(
            "graph.device is cuda, but the installed faiss has no GPU support: pip uninstall faiss-cpu, "
            "then pip install 'distspectral[gpu]'; or set graph.device to auto"
        )
    if device == "cuda" and not has_device:
        raise ConfigError("graph.device: is cuda, but FAISS finds no GPU on this machine; set it to auto or cpu")
    if device == "cpu" or not has_device:
        return faiss.knn  # type: ignore[no-any-return]
    return GpuSearch(faiss)


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
                        f"graph.device: the GPU is out of memory even with blocks of {2 * limit:,} bytes; "
                        "free it from other processes or set graph.device to cpu"
                    ) from error
                logger.warning("GPU out of memory: searching on with blocks of %s bytes", f"{limit:,}")
                self._limit_bytes = limit

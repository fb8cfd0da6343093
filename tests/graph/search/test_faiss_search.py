from __future__ import annotations

import sys
import threading
from types import SimpleNamespace

import faiss
import numpy as np
import pytest

from distspectral.clusters import ClusterConfig, fit_centroids
from distspectral.errors import ConfigError, MissingDependencyError
from distspectral.graph.config import AffinityConfig, GraphConfig
from distspectral.graph.knn import knn_graph
from distspectral.graph.search import faiss_search
from distspectral.graph.search.faiss_search import PRODUCTS, GpuSearch, fast_products, knn, select_search
from distspectral.storage.rows.vectors import ArrayVectors
from tests.datasets import blobs


class FakeFaiss:
    """A FAISS with GPU support whose device holds blocks of at most ``capacity_bytes``."""

    def __init__(self, n_gpus: int = 1, capacity_bytes: int = 1 << 40, message: str = "cudaMalloc error out of memory"):
        self.n_gpus, self.capacity_bytes, self.message = n_gpus, capacity_bytes, message
        self.limits: list[int] = []

    cvar = SimpleNamespace(**PRODUCTS)
    knn = staticmethod(lambda queries, base, k: "cpu")
    StandardGpuResources = SimpleNamespace

    def get_num_gpus(self):
        return self.n_gpus

    def knn_gpu(self, resources, queries, base, k, *, vectorsMemoryLimit, queriesMemoryLimit):
        assert vectorsMemoryLimit == queriesMemoryLimit
        self.limits.append(vectorsMemoryLimit)
        if (vectorsMemoryLimit or max(queries.nbytes, base.nbytes)) > self.capacity_bytes:
            raise RuntimeError(self.message)
        return "distances", "positions"


def use(monkeypatch, fake):
    monkeypatch.setitem(sys.modules, "faiss", fake)


ROWS = np.zeros((4096, 1024), np.float32)  # 16 MiB


@pytest.mark.parametrize(
    ("device", "n_gpus", "gpu"), [("auto", 1, True), ("cuda", 1, True), ("cpu", 1, False), ("auto", 0, False)]
)
def test_device_is_chosen_by_config_and_machine(monkeypatch, device, n_gpus, gpu):
    use(monkeypatch, FakeFaiss(n_gpus))
    assert isinstance(select_search(device), GpuSearch) == gpu


def test_faiss_without_gpu_support_searches_on_the_cpu(monkeypatch):
    fake = SimpleNamespace(knn=FakeFaiss.knn, cvar=FakeFaiss.cvar)
    use(monkeypatch, fake)
    assert select_search("auto")(ROWS, ROWS, 3) == "cpu"
    with pytest.raises(MissingDependencyError, match=r"distspectral\[gpu\]"):
        select_search("cuda")


def test_cuda_without_a_device_is_refused(monkeypatch):
    use(monkeypatch, FakeFaiss(n_gpus=0))
    with pytest.raises(ConfigError, match=r"device is cuda.*no GPU"):
        select_search("cuda")


def test_out_of_memory_halves_the_blocks_and_remembers(monkeypatch, caplog):
    fake = FakeFaiss(capacity_bytes=5 << 20)
    search = GpuSearch(fake, lambda: None)
    assert search(ROWS, ROWS, 3) == ("distances", "positions")
    assert fake.limits == [0, 8 << 20, 4 << 20]
    search(ROWS, ROWS, 3)
    assert fake.limits[3:] == [4 << 20]
    assert len(caplog.records) == 2


def test_blocks_are_a_share_of_the_free_memory():
    fake = FakeFaiss(capacity_bytes=5 << 20)
    GpuSearch(fake, lambda: 10 << 20)(ROWS, ROWS, 3)
    assert fake.limits == [3 << 20]


def test_out_of_memory_with_the_smallest_blocks_is_a_clear_error():
    fake = FakeFaiss(capacity_bytes=0)
    with pytest.raises(ConfigError, match=r"out of memory.*choose device cpu"):
        GpuSearch(fake, lambda: None)(ROWS, ROWS, 3)
    assert fake.limits[-1] == faiss_search.SMALLEST_GPU_BLOCK_BYTES


def test_other_errors_of_the_gpu_pass_through():
    fake = FakeFaiss(capacity_bytes=0, message="CUDA error 700: illegal memory access")
    with pytest.raises(RuntimeError, match="illegal"):
        GpuSearch(fake, lambda: None)(ROWS, ROWS, 3)
    assert len(fake.limits) == 1


def test_absent_faiss_names_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'distspectral\[cpu\]'"):
        select_search("auto")


# ---- the caller's own values -------------------------------------------------------------------------------------


@pytest.fixture
def own_values(monkeypatch):
    values = {name: 1000 + i for i, name in enumerate(PRODUCTS)}
    for name, value in values.items():
        monkeypatch.setattr(faiss.cvar, name, value)
    return values


def current_values():
    return {name: getattr(faiss.cvar, name) for name in PRODUCTS}


def test_a_search_goes_by_our_values_and_leaves_the_callers(own_values):
    with fast_products():
        assert current_values() == PRODUCTS
        knn(ROWS[:30, :4].copy(), ROWS[:30, :4].copy(), 3)
        assert current_values() == PRODUCTS, "the inner one does not end the outer one"
    assert current_values() == own_values


def test_a_search_that_fails_leaves_the_callers_values(own_values):
    with pytest.raises(AssertionError):
        knn(ROWS[:30, :4].copy(), ROWS[:30, :5].copy(), 3)
    assert current_values() == own_values


def test_the_last_of_several_threads_gives_the_callers_values_back(own_values):
    both_inside, first_is_out = threading.Barrier(2), threading.Event()

    def leave_first():
        with fast_products():
            both_inside.wait(10)
        first_is_out.set()

    thread = threading.Thread(target=leave_first)
    with fast_products():
        thread.start()
        both_inside.wait(10)
        assert first_is_out.wait(10)
        assert current_values() == PRODUCTS
    thread.join(10)
    assert current_values() == own_values


@pytest.mark.parametrize("method", ["exact", "cells"])
def test_a_graph_and_clusters_leave_the_callers_values(own_values, method):
    rows = blobs(1200, 4)[0]
    knn_graph(ArrayVectors(rows), GraphConfig(n_neighbors=5, method=method), AffinityConfig(scale_neighbor=3))
    fit_centroids(rows, 3, ClusterConfig(restarts=1), seed=0)
    assert current_values() == own_values

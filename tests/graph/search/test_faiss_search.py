from __future__ import annotations

import sys
import threading
from types import SimpleNamespace

import faiss
import numpy as np
import pytest

from distspectral.clustering.config import ClusterConfig
from distspectral.clustering.k_means import fit_centroids
from distspectral.devices import hidden_gpus
from distspectral.errors import ConfigError, MissingDependencyError, SearchFailedError
from distspectral.graph.config import AffinityConfig, GraphConfig
from distspectral.graph.knn import knn_graph
from distspectral.graph.search import faiss_search
from distspectral.graph.search.faiss_search import PRODUCTS, GpuSearch, fast_products, knn, select_search, uses_gpu
from distspectral.storage.rows.vectors import ArrayVectors
from tests.datasets import blobs
from tests.graph.search.fake_faiss import FakeFaiss


def use(monkeypatch, fake):
    monkeypatch.setitem(sys.modules, "faiss", fake)


ROWS = np.zeros((4096, 1024), np.float32)  # 16 MiB
FEW = ROWS[:5]


@pytest.mark.parametrize(
    ("device", "n_gpus", "gpu"), [("auto", 1, True), ("cuda", 1, True), ("cpu", 1, False), ("auto", 0, False)]
)
def test_device_is_chosen_by_config_and_machine(monkeypatch, device, n_gpus, gpu):
    use(monkeypatch, FakeFaiss(n_gpus))
    assert isinstance(select_search(device), GpuSearch) == gpu
    assert uses_gpu(device) == gpu


def test_auto_leaves_gpus_alone_that_were_not_granted(monkeypatch):
    use(monkeypatch, FakeFaiss())
    with hidden_gpus():
        assert select_search("auto") is knn
        assert not uses_gpu("auto")


def test_all_searches_of_a_process_share_the_resources_of_faiss(monkeypatch):
    fake = FakeFaiss()
    use(monkeypatch, fake)
    for _ in range(3):
        select_search("auto")(FEW, ROWS, 3)
    assert fake.n_resources == 1
    assert len(fake.asked) == 3


def test_faiss_without_gpu_support_searches_on_the_cpu(monkeypatch):
    use(monkeypatch, SimpleNamespace(knn=faiss.knn, cvar=faiss.cvar))
    assert select_search("auto") is knn
    with pytest.raises(MissingDependencyError, match=r"'\.\[gpu\]'"):
        select_search("cuda")


def test_cuda_without_a_device_is_refused(monkeypatch):
    use(monkeypatch, FakeFaiss(n_gpus=0))
    with pytest.raises(ConfigError, match=r"device is cuda.*no GPU"):
        select_search("cuda")


def test_a_gpu_finds_what_a_cpu_finds():
    rows = blobs(300, 6)[0]
    distances, positions = GpuSearch(FakeFaiss())(rows[:50], rows, 7)
    expected, wanted = knn(rows[:50], rows, 7)
    np.testing.assert_array_equal(positions, wanted)
    np.testing.assert_allclose(distances, expected, atol=1e-3)


def test_out_of_memory_halves_the_blocks_of_one_search(caplog):
    fake = FakeFaiss(capacity_bytes=5 << 20)
    search = GpuSearch(fake, lambda: None)
    assert search(FEW, ROWS, 3)[1].shape == (5, 3)
    assert fake.limits == [0, 8 << 20, 4 << 20]
    assert len(caplog.records) == 2


def test_blocks_are_a_share_of_the_memory_that_is_free_at_each_search():
    fake, free = FakeFaiss(capacity_bytes=8 << 20), iter([10 << 20, 20 << 20])
    search = GpuSearch(fake, lambda: next(free))
    search(FEW, ROWS, 3)
    search.largest_products(FEW.astype(np.float16), ROWS.astype(np.float16), 3)
    assert fake.limits == [3 << 20, 6 << 20]


def test_out_of_memory_with_the_smallest_blocks_is_a_clear_error():
    fake = FakeFaiss(capacity_bytes=0)
    with pytest.raises(ConfigError, match=r"out of memory.*choose device cpu"):
        GpuSearch(fake, lambda: None)(FEW, ROWS, 3)
    assert fake.limits[-1] == faiss_search.SMALLEST_GPU_BLOCK_BYTES


def test_other_errors_of_the_gpu_pass_through():
    fake = FakeFaiss(capacity_bytes=0, message="CUDA error 700: illegal memory access")
    with pytest.raises(RuntimeError, match="illegal"):
        GpuSearch(fake, lambda: None)(FEW, ROWS, 3)
    assert len(fake.limits) == 1


@pytest.mark.parametrize("search", [knn, GpuSearch(FakeFaiss())], ids=["CPU", "GPU"])
def test_infinite_distances_are_an_error_not_an_empty_list(search):
    rows = np.eye(30, dtype=np.float32) * np.float32(1e25)
    with pytest.raises(SearchFailedError, match=r"fewer than 3 of 30 vectors for 30 of 30 queries"):
        search(rows, rows, 3)


def test_absent_faiss_names_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(MissingDependencyError, match=r"pip install '\.\[cpu\]'"):
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
            both_inside.wait(60)
        first_is_out.set()

    thread = threading.Thread(target=leave_first)
    with fast_products():
        thread.start()
        both_inside.wait(60)
        assert first_is_out.wait(60)
        assert current_values() == PRODUCTS
    thread.join(60)
    assert current_values() == own_values


@pytest.mark.parametrize("method", ["exact", "cells"])
def test_a_graph_and_clusters_leave_the_callers_values(own_values, method):
    rows = blobs(1200, 4)[0]
    knn_graph(ArrayVectors(rows), GraphConfig(n_neighbors=5, method=method), AffinityConfig(scale_neighbor=3))
    fit_centroids(rows, 3, ClusterConfig(restarts=1), seed=0)
    assert current_values() == own_values

"""Which distance the search takes where the config leaves it open."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from scipy import sparse

from distspectral import SpectralNet
from distspectral.datasets import two_moons
from distspectral.graph import metric as module
from distspectral.graph.config import AffinityConfig, GraphConfig
from distspectral.graph.facts import Tally
from distspectral.graph.knn import knn_graph
from distspectral.graph.metric import TRIAL_ROWS, chosen_metric, metric_in_words
from distspectral.mapping import local_map
from distspectral.stages.neighbors import NEIGHBORS, neighbors
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.artifact.output import Output
from distspectral.storage.rows.sparse import SparseVectors
from distspectral.storage.rows.vectors import ArrayVectors
from tests.datasets import blobs, packed

AUTO = GraphConfig(n_neighbors=8, metric="auto")
UNIFORM = AffinityConfig(kind="uniform")


def counts(n_rows: int = 600, dim: int = 300, rate: float = 0.05) -> np.ndarray:
    """Return counts (N, D) of four kinds of rows, whose depth varies: the shallow ones are near to all."""
    rng = np.random.default_rng(0)
    kinds = rate * np.exp(rng.normal(0, 1, (4, dim)))
    depth = np.exp(rng.normal(0, 0.7, (n_rows, 1)))
    return rng.poisson(kinds[rng.integers(0, 4, n_rows)] * depth).astype(np.float32)


RIDDEN = counts()


def test_rows_that_hubs_rule_are_compared_by_centred_cosine(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, module.__name__)
    config, facts = chosen_metric(ArrayVectors(RIDDEN), AUTO)
    assert config == AUTO.model_copy(update={"metric": "centered_cosine"})
    assert facts["metric"] == "centered_cosine"
    assert facts["hubs"]["l2"]["orphans"] > 0.1 > 2 * facts["hubs"]["centered_cosine"]["orphans"]
    words = metric_in_words(facts)
    by = {name: f"{facts['hubs'][name]['orphans']:.1%}" for name in ("l2", "centered_cosine")}
    assert words.startswith(f"centred cosine, because of 600 sampled rows {by['l2']} are nobody's neighbour")
    assert f"{by['centered_cosine']} by centred cosine" in words
    assert words in caplog.text


def test_rows_without_hubs_are_compared_as_they_are() -> None:
    config, facts = chosen_metric(ArrayVectors(blobs(600, 10)[0]), AUTO)
    assert config.metric == facts["metric"] == "l2"
    assert set(facts["hubs"]) == {"n_rows", "l2"}  # nothing else was tried
    assert metric_in_words(facts).startswith("Euclidean, because hubs do not rule")


def test_centred_cosine_must_leave_fewer_orphans(monkeypatch: pytest.MonkeyPatch) -> None:
    orphans = iter([0.3, 0.3])
    monkeypatch.setattr(Tally, "hub_facts", lambda _: {"orphans": next(orphans), "in_degree_skewness": 9.0})
    config, facts = chosen_metric(ArrayVectors(RIDDEN), AUTO)
    assert config.metric == "l2"
    assert facts["hubs"]["centered_cosine"] == {"orphans": 0.3, "skewness": 9.0}


@pytest.mark.parametrize("rows", [two_moons(2000)[0], RIDDEN[:199], np.repeat(RIDDEN[:150], 10, axis=0)])
def test_planes_and_few_different_rows_are_not_tried(rows: np.ndarray) -> None:
    assert chosen_metric(ArrayVectors(rows), AUTO) == (AUTO.model_copy(update={"metric": "l2"}), {"metric": "l2"})


def test_copies_of_rows_are_no_hubs() -> None:
    rows = np.concatenate([blobs(600, 10)[0], np.tile(blobs(4, 10)[0], (300, 1))])
    copied, _ = knn_graph(ArrayVectors(rows), AUTO.model_copy(update={"metric": "l2"}), UNIFORM)
    assert np.mean(np.bincount(copied.block(0, len(rows))[0].ravel(), minlength=len(rows)) == 0) > 0.1
    hubs = chosen_metric(ArrayVectors(rows), AUTO)[1]["hubs"]
    assert hubs["n_rows"] == 604
    assert hubs["l2"]["orphans"] < 0.1


def test_sparse_rows_are_tried_as_they_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    thin = SparseVectors(sparse.csr_matrix(np.hstack([RIDDEN, np.zeros((600, 900))])))
    assert thin.is_thin
    expected = chosen_metric(ArrayVectors(RIDDEN), AUTO)[1]
    monkeypatch.setattr(SparseVectors, "gather", None)
    found = chosen_metric(thin, AUTO)[1]
    assert found["metric"] == "centered_cosine"
    assert found["hubs"]["n_rows"] == expected["hubs"]["n_rows"]
    assert found["hubs"]["l2"]["orphans"] == pytest.approx(expected["hubs"]["l2"]["orphans"], abs=0.01)


def test_a_sample_of_what_memory_holds_decides() -> None:
    rows = np.random.default_rng(0).standard_normal((TRIAL_ROWS + 500, 3))
    few = AUTO.model_copy(update={"task_memory": 16 * 3 * 400})
    assert chosen_metric(ArrayVectors(rows), AUTO)[1]["hubs"]["n_rows"] == TRIAL_ROWS
    assert chosen_metric(ArrayVectors(rows), few)[1]["hubs"]["n_rows"] == 400


def test_another_metric_is_left_as_it_is() -> None:
    config = AUTO.model_copy(update={"metric": "inner_product"})
    assert chosen_metric(ArrayVectors(RIDDEN), config) == (config, {"metric": "inner_product"})


@pytest.mark.parametrize("method", ["exact", "cells"])
def test_stage_memory_and_estimator_search_by_the_same_metric(tmp_path, method: str) -> None:
    config = AUTO.model_copy(update={"method": method})
    asked: list[str] = []

    def mapper(function, items, description, *, on_gpu=False):
        asked.append(description)
        return local_map(function, items, description, on_gpu=on_gpu)

    output = Output(Artifact(str(tmp_path / "n")), "neighbors", "fingerprint", {}, {})
    manifest = neighbors(packed(tmp_path, RIDDEN), output, config, mapper)
    graph, facts = knn_graph(ArrayVectors(RIDDEN), config, UNIFORM)
    told = NEIGHBORS.facts({"neighbors": manifest})
    assert asked[0] == "trying metrics"
    assert told["metric"] == facts["metric"] == "centered_cosine"
    assert told["hubs"] == facts["hubs"]
    assert NEIGHBORS.lines(told) == {"distances": metric_in_words(told)}
    same, _ = knn_graph(ArrayVectors(RIDDEN), config.model_copy(update={"metric": "centered_cosine"}), UNIFORM)
    for found, expected in zip(graph.block(0, 600), same.block(0, 600), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_an_estimator_tells_its_metric() -> None:
    brief = {"representation": "input", "affinity_space": "euclidean", "hidden": 8, "max_steps": 5, "random_state": 0}
    model = SpectralNet(n_clusters=3, n_neighbors=8, **brief).fit(RIDDEN)
    assert model.graph_["metric"] == "centered_cosine"
    assert model.graph_["hubs"]["l2"]["orphans"] > 0.1

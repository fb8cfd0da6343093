from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from distspectral.errors import ConfigError
from distspectral.graph.config import GraphConfig
from distspectral.graph.search.cells import NO_CELL, Cells, fit_centroids, fit_regions
from distspectral.graph.search.sampling import Sample
from distspectral.graph.search.tuning import FILL, SETTING, Forecast, Setting, candidates, most_rows, tune
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.rows.vectors import ArrayVectors
from tests.datasets import blobs

DIM, INTRINSIC, K = 16, 8, 6


def drawn(n_rows, seed):
    """Rows of a dataset that has any number of them: Gaussian in a few dimensions of more."""
    rng = np.random.default_rng(seed)
    latent = rng.standard_normal((n_rows, INTRINSIC)).astype(np.float32)
    return latent @ np.random.default_rng(0).standard_normal((INTRINSIC, DIM)).astype(np.float32)


def sample_of(n_rows, n_fitted=20_000, n_seen=60_000):
    """What a dataset of so many such rows would show: neighbours are as near as they would be among all."""
    queries = drawn(300, 1)
    near = (drawn(300 * K, 2) - drawn(300 * K, 3)) * np.float32(n_rows ** (-1 / INTRINSIC))
    truth = np.repeat(queries, K, axis=0) + near
    return Sample(n_rows, queries, truth, ArrayVectors(drawn(n_fitted, 4)), ArrayVectors(drawn(n_seen, 5)))


def counts_of(cells, rows):
    assigned = cells.assign(rows)
    return np.bincount(assigned[assigned != NO_CELL], minlength=len(cells))


@pytest.mark.parametrize(("n_rows", "n_fitted"), [(1_000_000, 10_000), (1_000_000_000, 20_000)])
def test_a_forecast_holds_within_its_error_however_many_rows_there_are(n_rows, n_fitted):
    config = GraphConfig(n_neighbors=K, solver="hnsw", target_recall=0.9, task_memory="384MiB")
    setting = tune(sample_of(n_rows, n_fitted), config)
    forecast, fresh = setting.forecast, drawn(60_000, 99)
    copies = np.count_nonzero(setting.cells.assign(fresh) != NO_CELL, axis=1)
    error = np.hypot(forecast.copies_error, copies.std() / np.sqrt(len(fresh)))
    assert abs(forecast.copies - copies.mean()) < 3 * error
    assert 0 < forecast.copies_error < 0.01 * forecast.copies
    assert 0 < forecast.recall_error < 0.02


def test_pairs_of_one_query_are_one_observation_of_the_recall():
    sample = sample_of(1_000_000, 10_000)
    alike = dataclasses.replace(sample, truth=np.repeat(sample.truth[::K], K, axis=0))
    recall = tune(alike, GraphConfig(n_neighbors=K, solver="hnsw", target_recall=0.9)).forecast
    assert recall.recall_error == pytest.approx(np.sqrt(recall.recall * (1 - recall.recall) / 299), rel=1e-6)


def test_the_noise_of_counts_refuses_no_cells():
    config = GraphConfig(n_neighbors=K, solver="hnsw", target_recall=0.9, task_memory="128MiB")
    n_rows, limit = 100_000_000, FILL * most_rows(config, "hnsw", DIM)
    sample = sample_of(n_rows, n_seen=10_000)
    setting = tune(sample, config)
    one = n_rows / sample.seen.n_rows
    assert counts_of(setting.cells, drawn(10_000, 5)).max() * one > limit  # what the noisiest of them says
    largest = counts_of(setting.cells, drawn(300_000, 99)).max() * n_rows / 300_000
    assert 0.8 * largest < setting.forecast.largest_cell < limit
    assert largest < setting.forecast.largest_cell_bound


def test_a_target_out_of_reach_names_the_keys_that_bring_it_nearer():
    rows = np.zeros((2000, 4), np.float32)  # which no cells tell apart
    config = GraphConfig(n_neighbors=5, solver="exact").model_copy(update={"task_memory": 1 << 14})
    sample = Sample(2000, rows[:50], rows[:250], ArrayVectors(rows), ArrayVectors(rows))
    with pytest.raises(ConfigError, match=r"graph.target_recall: 0.985 .* graph.task_memory = 16,384") as refused:
        tune(sample, config)
    assert refused.value.parameters == ("graph.target_recall", "graph.task_memory")


def test_cells_are_no_smaller_than_a_task_s_memory_can_fit():
    config = GraphConfig(solver="exact", task_memory="64MiB")
    assert [max(sizes) for _, sizes in candidates(config, 10**6, 96)] == [8000]
    ((_, sizes),) = candidates(config, 10**8, 96)
    assert min(sizes) == math.ceil(10**8 / ((64 << 20) / (16 * 96)))  # two rows a centroid in half the memory


@pytest.mark.parametrize("n_cells", [20, 600])
def test_a_setting_is_read_as_it_was_written(tmp_path, monkeypatch, n_cells):
    monkeypatch.setattr("distspectral.graph.search.cells.TWO_LEVEL_CELLS", 500)
    centroids = fit_centroids(blobs(1500, 4)[0], n_cells, 0)
    regions = fit_regions(centroids, 0)
    assert (regions is None) == (n_cells == 20)
    groups = np.arange(len(centroids), dtype=np.int32) // 7
    forecast = Forecast(0.987, 0.001, 1.5, 0.01, 90.0, 99.0, 12.0)
    written = Setting(Cells(centroids, 2, 0.25, regions), groups, "hnsw", 0.99, forecast)
    artifact = Artifact(str(tmp_path))
    assert Setting.read(artifact) is None
    written.write(artifact)
    assert artifact.has(SETTING)
    found = Setting.read(artifact)
    for name in ("centroids", "max_extra", "eps"):
        np.testing.assert_array_equal(getattr(found.cells, name), getattr(written.cells, name))
    assert (found.cells.regions is None) == (regions is None)
    for name in ("centroids", "cells", "stops") if regions else ():
        np.testing.assert_array_equal(getattr(found.cells.regions, name), getattr(regions, name))
    np.testing.assert_array_equal(found.groups, groups)
    for name in ("solver", "local_target", "forecast"):
        assert getattr(found, name) == getattr(written, name)

from __future__ import annotations

import numpy as np
import pytest

from distspectral.errors import ConfigError
from distspectral.graph.config import GraphConfig
from distspectral.graph.search.cells import NO_CELL, Cells, fit_centroids, fit_coarse
from distspectral.graph.search.sampling import Sample
from distspectral.graph.search.tuning import SETTING, Forecast, Setting, candidates, tune
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.rows.vectors import ArrayVectors
from tests.datasets import blobs

DIM, INTRINSIC, K = 16, 4, 6


def drawn(n_rows, seed):
    """Rows of a dataset that has any number of them: Gaussian in a few dimensions, the last of them thin."""
    rng = np.random.default_rng(seed)
    latent = rng.standard_normal((n_rows, INTRINSIC)).astype(np.float32)
    return latent @ np.random.default_rng(0).standard_normal((INTRINSIC, DIM)).astype(np.float32)


def sample_of(n_rows, seed=1):
    """What a dataset of so many such rows would show: neighbours are as near as they would be among all."""
    queries = drawn(1000, seed)
    near = (drawn(1000 * K, seed + 1) - drawn(1000 * K, seed + 2)) * np.float32(n_rows ** (-1 / INTRINSIC))
    truth = np.repeat(queries, K, axis=0) + near
    fitted, seen = (ArrayVectors(drawn(min(n_rows, 100_000), seed + more)) for more in (3, 4))
    return Sample(n_rows, queries, truth, fitted, seen)


@pytest.mark.parametrize("n_rows", [1_000_000, 1_000_000_000])
def test_a_forecast_holds_within_its_error_however_many_rows_there_are(n_rows):
    """Ten thousand seen rows are three a cell at 1e9, whose largest count would be three times the largest cell."""
    config = GraphConfig(n_neighbors=K, solver="hnsw", target_recall=0.9)
    setting = tune(sample_of(n_rows), config)
    forecast = setting.forecast
    fresh = drawn(100_000, 99)
    assigned = setting.cells.assign(fresh)
    copies = np.count_nonzero(assigned != NO_CELL, axis=1)
    error = np.hypot(forecast.copies_error, copies.std() / np.sqrt(len(fresh)))
    assert abs(forecast.copies - copies.mean()) < 3 * error
    assert forecast.copies_error < 0.01 * forecast.copies
    assert 0 < forecast.recall_error < 0.01
    sizes = np.bincount(assigned[assigned != NO_CELL], minlength=len(setting.cells)) * (n_rows / len(fresh))
    print(n_rows, len(setting.cells), setting.cells.max_extra, forecast, sizes.max(), sizes.mean())
    assert 0.75 * sizes.max() < forecast.largest_cell < forecast.largest_cell_bound

from __future__ import annotations

import logging
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from distspectral.embedding.drift import measure_drift
from distspectral.models.embedder import Embedder
from distspectral.stages.calibrate import load_calibrated_network
from distspectral.stages.cluster import load_assigner
from distspectral.storage.rows.vectors import MappedVectors
from tests.runs import LEARNED, N_ROWS
from tests.stages.chain import pipeline_upto


@pytest.fixture(scope="module", params=[{}, LEARNED | {"pack": {"dtype": "float16"}}], ids=["rows", "codes in halves"])
def trained(request, tmp_path_factory):
    plan = pipeline_upto(tmp_path_factory.mktemp("run"), "cluster", **request.param).chain
    assigner = load_assigner(plan.artifact("cluster"))
    return plan.artifact("pack"), Embedder(load_calibrated_network(plan.artifact("calibrate")), assigner).eval()


def test_the_training_rows_have_not_drifted(trained, caplog):
    rows = MappedVectors(trained[0]).block(0, N_ROWS)
    found = measure_drift(rows, *trained)
    assert found["n_rows"] == N_ROWS
    # not one row is its own neighbour, so both sides see the same pairs
    assert found["energy_ratio"] == pytest.approx(1, abs=1e-3)
    assert found["distance_ratio"] == pytest.approx(1, abs=1e-3)
    assert found["training_distance"] > 0
    assert not found["drifted"]
    assert not caplog.records


@pytest.mark.parametrize("shift", [3.0, -8.0])
def test_shifted_rows_have_and_it_is_said(trained, caplog, shift):
    rows = MappedVectors(trained[0]).block(0, N_ROWS) + np.float32(shift)
    with caplog.at_level(logging.WARNING):
        found = measure_drift(rows, *trained)
    assert found["drifted"]
    assert found["distance_ratio"] > 1.5
    assert "have left the training distribution" in caplog.text


def test_whether_a_handful_of_rows_has_drifted_is_unknown(trained, caplog):
    rows = MappedVectors(trained[0]).block(0, 5) + np.float32(9)
    found = measure_drift(rows, *trained)
    assert found["distance_ratio"] > 1.5
    assert found["drifted"] is None
    assert not caplog.records


class Torn(nn.Module):
    """One function that is constant but for a leap, beyond which few rows lie; these have most of the energy."""

    encoder = None

    def __init__(self, leap: float) -> None:
        super().__init__()
        self.leap = leap

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return 30.0 * (rows[:, :1] > self.leap)


def test_a_chance_choice_of_training_rows_has_not_drifted_although_few_rows_have_all_energy(trained, caplog):
    rows = MappedVectors(trained[0]).block(0, N_ROWS)
    embedder = SimpleNamespace(network=Torn(float(np.quantile(rows[:, 0], 0.98))))
    rng = np.random.default_rng(0)
    found = [measure_drift(rows[rng.permutation(N_ROWS)[:50]], trained[0], embedder) for _ in range(40)]
    assert max(one["energy_ratio"] for one in found) > 1.5
    assert not any(one["drifted"] for one in found)
    assert not caplog.records

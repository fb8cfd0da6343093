from __future__ import annotations

import pytest

from distspectral.bench.train import compare_training


def test_every_objective_is_timed_beside_its_bare_network():
    result = compare_training(n_rows=400, dim=6, steps=4, rounds=1, device="cpu")
    assert set(result["objectives"]) == {"spectral", "autoencoder", "siamese"}
    for rates in result["objectives"].values():
        assert rates["steps_per_second"] > 0
        expected = rates["steps_per_second"] / rates["bare_steps_per_second"]
        assert rates["ratio_to_bare"] == pytest.approx(expected)

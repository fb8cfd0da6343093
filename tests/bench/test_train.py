from __future__ import annotations

import pytest
import torch

from distspectral.bench.train import compare_ranks, compare_training
from distspectral.precision import fast_bfloat16


def test_every_objective_is_timed_beside_its_bare_network():
    result = compare_training(n_rows=400, dim=6, steps=4, rounds=1, device="cpu")
    assert ("bfloat16" in result) is fast_bfloat16(torch.device("cpu"))
    for timed in (result[name] for name in ("float32", "bfloat16") if name in result):
        assert timed["product_gflops"] > 0
        assert set(timed["objectives"]) == {"spectral", "autoencoder", "siamese"}
        for rates in timed["objectives"].values():
            assert rates["steps_per_second"] > 0
            expected = rates["steps_per_second"] / rates["bare_steps_per_second"]
            assert rates["ratio_to_bare"] == pytest.approx(expected)
            assert rates["bare_share_of_product"] > 0  # how much is a matter of what else the machine does


def test_ranks_are_timed_beside_one_process():
    result = compare_ranks(n_rows=400, dim=6, steps=4, rounds=1, device="cpu", n_ranks=2)
    assert result["ranks"] == 2
    assert set(result["objectives"]) == {"spectral", "autoencoder", "siamese"}
    for rates in result["objectives"].values():
        assert rates["ratio"] == pytest.approx(rates["steps_per_second"] / rates["one_process_steps_per_second"])

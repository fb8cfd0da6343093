from __future__ import annotations

import torch

from distspectral.comm import collectives


def test_one_process_is_rank_zero_of_one():
    assert (collectives.rank(), collectives.world_size()) == (0, 1)


def test_sums_of_one_process_are_its_own_detached():
    tensors = {
        "a": torch.randn(2, 3, dtype=torch.float64, requires_grad=True),
        "b": torch.ones((), dtype=torch.float64),
    }
    total = collectives.all_reduce_sum(tensors)
    assert list(total) == ["a", "b"]
    for name, tensor in tensors.items():
        assert torch.equal(total[name], tensor)
        assert total[name].shape == tensor.shape
        assert not total[name].requires_grad
    total["a"].zero_()
    assert tensors["a"].abs().sum() > 0, "the sum is a new tensor"


def test_one_process_is_always_identical():
    collectives.check_identical(torch.full((2,), torch.nan, dtype=torch.float64), "anything")

from __future__ import annotations

import pytest
import torch

from distspectral.comm import collectives
from tests.ranks import run_ranks


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


def what_rank_one_raises():
    try:
        with collectives.raise_on_all_ranks():
            if collectives.rank() == 1:
                raise OSError("no space left")
    except Exception as error:
        return type(error).__name__
    return "nothing"


def test_what_one_rank_raises_ends_the_block_on_all(tmp_path):
    assert run_ranks(what_rank_one_raises, 2, tmp_path) == ["OtherRankFailedError", "OSError"]


def test_one_process_raises_its_own_error():
    with pytest.raises(OSError, match="no space"), collectives.raise_on_all_ranks():
        raise OSError("no space left")
    with collectives.raise_on_all_ranks():
        pass

from __future__ import annotations

import numpy as np
import pytest
import torch

from distspectral.comm import collectives
from distspectral.datasets import Mixture
from distspectral.graph.store import ArrayGraph
from distspectral.storage.rows.vectors import ArrayVectors
from distspectral.training.loop import Trainer, WindowRecorder
from distspectral.training.siamese import SiameseConfig, SiameseSettings
from distspectral.training.spectral import SpectralSettings, SpectralTrainConfig
from tests.ranks import DEVICE_ALONE, run_ranks


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


# ---- devices -----------------------------------------------------------------------------------------------------


class CheckedRecorder(WindowRecorder):
    """Lets all ranks agree at each checkpoint, as where one of them writes it."""

    def checkpoint(self, trainer: Trainer) -> None:
        with collectives.raise_on_all_ranks():
            pass


def trained(name: str) -> torch.Tensor | str:
    """Return the weights after a few steps, their windows and checkpoints, or what training was refused for."""
    few = {"batch_size": 32, "max_steps": 6, "window_steps": 2, "checkpoint_steps": 3, "device": "cpu"}
    settings = {
        "spectral": SpectralSettings(train=SpectralTrainConfig(**few), n_components=3),
        "siamese": SiameseSettings(train=SiameseConfig(hidden=(8,), **few)),
    }[name]
    rows = Mixture(4).rows(0, 60)[0]
    neighbors = (np.arange(60)[:, None] + [1, 2, 3]) % 60
    try:
        trainer = settings.trainer(ArrayVectors(rows), ArrayGraph(neighbors, np.ones((60, 3), np.float32)))
        trainer.fit(CheckedRecorder())
    except RuntimeError as error:
        return str(error)
    return torch.cat([p.detach().reshape(-1) for p in trainer.model.parameters()])


def trained_all() -> dict[str, torch.Tensor | str]:
    return {name: trained(name) for name in ("spectral", "siamese")}


def test_ranks_on_gpus_train_in_a_group_that_takes_tensors_of_the_host(tmp_path):
    """In place of NCCL, which needs a GPU, gloo: what is under test is that each tensor finds a backend."""
    backends = {"nccl": DEVICE_ALONE}.get(collectives.GPU_BACKENDS, collectives.GPU_BACKENDS.replace("nccl", "gloo"))
    first, second = run_ranks(trained_all, 2, tmp_path, backend=backends)
    for name, weights in first.items():
        assert torch.equal(weights, second[name]), f"{name}: {weights}"


def test_a_group_of_one_device_alone_refuses_the_samplers_sums(tmp_path):
    for rank in run_ranks(trained_all, 2, tmp_path, backend=DEVICE_ALONE):
        assert "No backend type associated with device type cpu" in rank["spectral"]

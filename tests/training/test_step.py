"""One optimisation step: what it reads from the device, and what it refuses."""

from __future__ import annotations

import collections
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from distspectral.errors import NonFiniteStepError
from distspectral.objectives.dscl import DSCLConfig
from distspectral.storage.rows.vectors import ArrayVectors
from distspectral.training.autoencoder import AutoencoderConfig, AutoencoderSettings
from distspectral.training.config import TrainConfig
from distspectral.training.dscl import DSCLSettings
from distspectral.training.loop import Trainer, Window
from distspectral.training.siamese import SiameseConfig, SiameseSettings
from distspectral.training.spectral import SpectralSettings
from distspectral.training.step import optimization_step
from tests.oracles import random_graph

READS = {
    "_local_scalar_dense", "_linalg_check_errors", "is_nonzero", "equal", "allclose", "nonzero", "masked_select",
    "bincount", "_unique2", "unique_dim", "unique_consecutive", "linalg_eigh", "_linalg_eigh", "linalg_inv",
    "cholesky_inverse",
}  # fmt: skip
"""Operators for which a GPU has to be waited for: their values, or sizes that depend on values, reach the host."""


class HostReads(TorchDispatchMode):
    """Counts them, by name; ``tolist`` of a CPU tensor passes no operator, so it is counted where it is called."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.counts: collections.Counter[str] = collections.Counter()
        tolist = torch.Tensor.tolist
        monkeypatch.setattr(torch.Tensor, "tolist", lambda tensor: (self.counts.update(["tolist"]), tolist(tensor))[1])

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name().partition("::")[2].partition(".")[0]
        self.counts.update([name] if name in READS else [])
        return func(*args, **(kwargs or {}))


def spectral(**changes: Any) -> SpectralSettings:
    return SpectralSettings(n_components=3, network={"hidden": (16,)}, **changes)


SETTINGS = {
    "logdet": spectral(),
    "trace": spectral(spectral={"objective": "trace"}),
    "ema": spectral(orthonorm={"train_factor": "ema"}),
    "unnormalized": spectral(spectral={"laplacian": "unnormalized"}),
    "clipped": spectral(train={"max_gradient_norm": 0.1}),
    "dscl": DSCLSettings(network={"hidden": (16,)}, dscl=DSCLConfig(n_components=4), train=TrainConfig(batch_size=64)),
    "autoencoder": AutoencoderSettings(train=AutoencoderConfig(n_components=3, hidden=(16,), corruption=0.2)),
    "siamese": SiameseSettings(train=SiameseConfig(n_components=3, hidden=(16,))),
}


def trainer(settings: Any) -> Trainer[Any, Any]:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(160, 6)).astype(np.float32)
    return settings.trainer(ArrayVectors(rows, rng.integers(0, 16, 160)), random_graph(160, 4))


def take_step(one: Trainer[Any, Any], step: int, window: Window) -> None:
    norm = one.config.max_gradient_norm
    batch = one.sampler.batch(step)
    value, total = optimization_step(one.network, one.objective, batch, one.optimizer, norm)
    window.add(value, one.objective.window_sums(total))


@pytest.mark.parametrize("name", SETTINGS)
def test_a_step_reads_the_device_once(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    one, window = trainer(SETTINGS[name]), Window()
    batches = [one.sampler.batch(step) for step in range(3)]
    one.sampler.batch = lambda step: batches[step]  # type: ignore[method-assign]
    reads = HostReads(monkeypatch)
    for step in range(3):
        reads.counts.clear()
        with reads:
            take_step(one, step, window)
        assert reads.counts.total() == 1, reads.counts
    assert window.n_steps == 3


def test_dependent_columns_cost_reads_and_not_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    one, window = trainer(SETTINGS["dscl"]), Window()
    head = one.model.network.head
    with torch.no_grad():
        head.weight[1], head.bias[1] = head.weight[0], head.bias[0]
    take_step(one, 0, window)
    assert window.n_steps == 1
    assert one.objective.presume_independent is False
    assert int(one.model.orthonormal.n_updates) == 1, "the step that was tried again counts once"
    with torch.no_grad():
        head.weight[1] = -head.weight[2].roll(1)
    take_step(one, 1, window)
    assert one.objective.presume_independent is True, "columns are independent again"


@pytest.mark.parametrize("name", SETTINGS)
def test_a_gradient_that_is_not_finite_moves_neither_weights_nor_average(name: str) -> None:
    one = trainer(SETTINGS[name])
    parameter = next(one.model.parameters())
    parameter.register_hook(lambda gradient: gradient * torch.nan)
    before = {key: tensor.clone() for key, tensor in one.model.state_dict().items()}
    with pytest.raises(NonFiniteStepError, match="gradient holds NaN"):
        take_step(one, 0, Window())
    assert all(torch.equal(tensor, before[key]) for key, tensor in one.model.state_dict().items())

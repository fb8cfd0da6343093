from __future__ import annotations

import numpy as np
import pytest
import torch

from distspectral.errors import NonFiniteStepError
from distspectral.storage.artifacts import Artifact
from distspectral.storage.vectors import ArrayVectors
from distspectral.training.checkpoint import read_state, write_state
from distspectral.training.loop import SilentObserver
from distspectral.training.spectral import SpectralSettings
from tests.oracles import random_graph


class Keeper(SilentObserver):
    """Keeps every checkpoint as a file of an artifact."""

    def __init__(self, artifact):
        super().__init__()
        self.artifact = artifact

    def checkpoint(self, trainer):
        write_state(self.artifact, f"{trainer.step}.pt", trainer.state_dict())


def trainer(**train):
    vectors = ArrayVectors(np.random.default_rng(0).normal(size=(80, 4)).astype(np.float32))
    settings = SpectralSettings(
        n_components=3,
        network={"hidden": (16,)},
        train={"batch_size": 64, "max_steps": 60, "window_steps": 10, "checkpoint_steps": 30, "warmup_steps": 5}
        | train,
    )
    return settings.trainer(vectors, random_graph(80, 4))


@pytest.mark.parametrize("plateau", [False, True])
def test_a_resumed_run_ends_in_the_very_same_weights(tmp_path, plateau):
    train = {"patience": 2, "tolerance": 0.9, "max_steps": 100} if plateau else {}  # a plateau at step 30
    keeper = Keeper(Artifact(str(tmp_path)))
    whole = trainer(**train)
    whole.fit(keeper)
    assert whole.schedule.plateaued == plateau
    resumed = trainer(**train)
    resumed.load_state_dict(read_state(keeper.artifact, "30.pt"))
    observer = SilentObserver()
    resumed.fit(observer)
    assert [record["step"] for record in observer.history] == [record["step"] for record in keeper.history[3:]]
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, resumed.model.state_dict()[name]), name


def test_windows_tell_steps_rates_and_ordered_ritz_values():
    observer = SilentObserver()
    trainer().fit(observer)
    assert [record["step"] for record in observer.history] == [10, 20, 30, 40, 50, 60]
    last = observer.history[-1]
    assert last["ritz_values"] == sorted(last["ritz_values"])
    assert last["ritz_values"][0] == pytest.approx(0, abs=1e-9)
    assert last["ritz_sum"] == pytest.approx(sum(last["ritz_values"][:3]))
    assert last["edges_per_second"] > 0
    assert last["learning_rate"] < observer.history[2]["learning_rate"]


def test_training_lowers_the_ritz_sum():
    observer = SilentObserver()
    trainer(max_steps=300).fit(observer)
    assert observer.history[-1]["ritz_sum"] < 0.9 * observer.history[0]["ritz_sum"]


def test_a_step_that_is_not_finite_moves_no_weight():
    one = trainer()
    batch = one.sampler.batch(0)
    batch.vectors[0, 0] = torch.nan
    one.sampler.batch = lambda step: batch
    before = {name: tensor.clone() for name, tensor in one.model.state_dict().items()}
    with pytest.raises(NonFiniteStepError):
        one.fit(SilentObserver())
    for name, tensor in one.model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_a_plateau_ends_training_before_its_budget():
    one = trainer(max_steps=2000, patience=2, tolerance=0.5)
    one.fit(SilentObserver())
    assert one.schedule.plateaued
    assert one.step == one.schedule.last_step < 2000

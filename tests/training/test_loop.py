from __future__ import annotations

import numpy as np
import pytest
import torch

from distspectral.errors import NonFiniteStepError
from distspectral.models.state import read_state, write_state
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.rows.vectors import ArrayVectors
from distspectral.training.dscl import DSCLSettings
from distspectral.training.loop import WindowRecorder
from distspectral.training.spectral import SpectralSettings
from tests.oracles import random_graph


@pytest.fixture
def one_thread():
    """No number of threads is timed, so every pass through a network is a step's."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Keeper(WindowRecorder):
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
    train = (
        {"patience": 2, "tolerance": 0.9, "max_steps": 100, "cooldown": 0.4} if plateau else {}
    )  # a plateau at step 30
    keeper = Keeper(Artifact(str(tmp_path)))
    whole = trainer(**train)
    whole.fit(keeper)
    assert whole.schedule.plateaued == plateau
    resumed = trainer(**train)
    resumed.load_state_dict(read_state(keeper.artifact, "30.pt"))
    observer = WindowRecorder()
    resumed.fit(observer)
    assert [record["step"] for record in observer.history] == [record["step"] for record in keeper.history[3:]]
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, resumed.model.state_dict()[name]), name


def test_windows_tell_steps_rates_and_ordered_ritz_values():
    observer = WindowRecorder()
    trainer().fit(observer)
    assert [record["step"] for record in observer.history] == [10, 20, 30, 40, 50, 60]
    last = observer.history[-1]
    assert last["ritz_values"] == sorted(last["ritz_values"])
    assert last["ritz_values"][0] == pytest.approx(0, abs=1e-9)
    assert last["ritz_sum"] == pytest.approx(sum(last["ritz_values"][:3]))
    assert last["edges_per_second"] > 0
    assert last["learning_rate"] < observer.history[2]["learning_rate"]


def test_training_lowers_the_ritz_sum():
    observer = WindowRecorder()
    trainer(max_steps=300).fit(observer)
    assert observer.history[-1]["ritz_sum"] < 0.9 * observer.history[0]["ritz_sum"]


def test_a_step_that_is_not_finite_moves_no_weight():
    one = trainer()
    batch = one.sampler.batch(0)
    batch.vectors[0, 0] = torch.nan
    one.sampler.batch = lambda step: batch
    before = {name: tensor.clone() for name, tensor in one.model.state_dict().items()}
    with pytest.raises(NonFiniteStepError):
        one.fit(WindowRecorder())
    for name, tensor in one.model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


class Poisoned:
    """A sampler whose batches of some steps hold NaN."""

    def __init__(self, sampler, steps):
        self.sampler, self.steps = sampler, set(steps)

    def batch(self, step):
        batch = self.sampler.batch(step)
        if step in self.steps:
            batch.vectors[0, 0] = torch.nan
        return batch


def poisoned_trainer(steps, **train):
    one = trainer(patience=0, **train)
    one.sampler = Poisoned(one.sampler, steps)
    return one


def test_poisoned_steps_are_skipped_counted_and_the_run_goes_on():
    one, observer = poisoned_trainer([0, 7, 8, 33]), WindowRecorder()
    one.fit(observer)
    assert one.step == 60
    assert [record["skipped_steps"] for record in observer.history] == [3, 3, 3, 4, 4, 4]
    assert all(np.isfinite(record["loss"]) for record in observer.history)
    assert int(one.model.orthonormal.n_updates) == 56
    assert all(bool(tensor.isfinite().all()) for tensor in one.model.state_dict().values())


def test_a_window_of_skipped_steps_only_goes_on_into_the_next():
    one, observer = poisoned_trainer(range(10, 20)), WindowRecorder()
    one.fit(observer)
    assert [record["step"] for record in observer.history] == [10, 30, 40, 50, 60]


def test_a_training_whose_last_steps_are_skipped_ends_with_what_it_says_in_the_end():
    one, observer = poisoned_trainer(range(50, 60), checkpoint_steps=50), WindowRecorder()
    one.finish = lambda: {"held_out_loss": 0.25}
    one.fit(observer)
    before, last = observer.history[-2:]
    assert (last["step"], last["skipped_steps"], last["seconds"]) == (60, 10, 0)
    assert last["held_out_loss"] == 0.25
    assert last["loss"] == before["loss"]
    other = trainer()
    other.load_state_dict(one.state_dict())
    assert other.last_record == last


def test_too_many_in_a_row_end_training_with_an_explanation():
    one = poisoned_trainer(range(12, 60), max_skipped_steps=5)
    with pytest.raises(NonFiniteStepError, match=r"stopped at step 16: 5 steps in a row .*learning_rate"):
        one.fit(WindowRecorder())
    one = poisoned_trainer([step for step in range(60) if step % 5], max_skipped_steps=5)
    one.fit(WindowRecorder())
    assert one.skipped.total == 48, "four in a row are not five"


def test_a_run_of_skipped_steps_only_is_never_a_trained_model():
    with pytest.raises(NonFiniteStepError, match="60 steps in a row"):
        poisoned_trainer(range(60), max_skipped_steps=1000).fit(WindowRecorder())


def test_a_count_of_skipped_steps_survives_a_restart():
    one = poisoned_trainer([3])
    one.fit(WindowRecorder())
    other = trainer()
    other.load_state_dict(one.state_dict())
    assert other.skipped.total == 1


def test_a_gram_that_cannot_be_factored_is_skipped_and_leaves_the_moving_average_alone():
    one, observer = trainer(patience=0, max_growth=1), WindowRecorder()
    real, seen = one.objective.local_sums, []

    def degenerate(outputs, batch):
        sums = real(outputs, batch)
        seen.append(one.model.orthonormal.gram_average.clone())
        return sums | {"gram": -sums["gram"]} if len(seen) == 21 else sums

    one.objective.local_sums = degenerate
    one.fit(observer)
    assert one.skipped.total == 1
    assert torch.equal(seen[20], seen[21]), "the step after it finds the average of the step before it"


def test_a_gradient_that_is_not_finite_moves_nothing():
    one = trainer(patience=0)
    first = next(one.model.network.parameters())
    first.register_hook(lambda gradient: gradient * torch.inf if one.step == 4 else gradient)
    states = {}

    class Watcher(WindowRecorder):
        def checkpoint(self, trainer):
            states[trainer.step] = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}

    one.config = one.config.model_copy(update={"checkpoint_steps": 1})
    one.fit(Watcher())
    assert one.skipped.total == 1
    assert all(torch.equal(tensor, states[5][name]) for name, tensor in states[4].items())
    assert not all(torch.equal(tensor, states[6][name]) for name, tensor in states[5].items())


def test_a_plateau_ends_training_before_its_budget():
    one = trainer(max_steps=2000, patience=2, tolerance=0.5)
    one.fit(WindowRecorder())
    assert one.schedule.plateaued
    assert one.step == one.schedule.last_step < 2000


@pytest.mark.parametrize(("precision", "rounded"), [("bfloat16", 57), ("float32", 0)])
@pytest.mark.usefixtures("one_thread")
def test_all_but_the_last_steps_round_factors_if_asked(precision, rounded):
    asked = trainer(precision=precision, max_growth=1)
    seen = []
    asked.network.register_forward_hook(lambda *_: seen.append(torch.is_autocast_enabled("cpu")))
    asked.fit(WindowRecorder())
    assert len(seen) == 60
    assert seen == [True] * rounded + [False] * (60 - rounded)
    assert {tensor.dtype for tensor in asked.model.state_dict().values()} <= {torch.float32, torch.float64, torch.int64}


@pytest.mark.usefixtures("one_thread")
def test_steps_that_tell_columns_by_their_rounding_round_nothing():
    rng = np.random.default_rng(0)
    vectors = ArrayVectors(rng.normal(size=(80, 4)).astype(np.float32), labels=np.arange(80) % 4)
    train = {"batch_size": 32, "max_steps": 40, "precision": "bfloat16"}
    asked = DSCLSettings(dscl={"n_components": 4, "train_classes": "all"}, train=train).trainer(vectors)
    seen = []
    asked.network.register_forward_hook(lambda *_: seen.append(torch.is_autocast_enabled("cpu")))
    asked.fit(WindowRecorder())
    assert seen == [False] * 40


def test_moments_that_fade_are_forgotten_once_a_window():
    one = trainer()
    with torch.no_grad():  # units that no row reaches have no gradient
        one.network.perceptron.trunk[0].bias[:4] = -100
    one.optimizer.zero_grad()
    one.fit(WindowRecorder())
    weight = one.network.perceptron.trunk[0].weight
    state = one.optimizer.state[weight]
    state["exp_avg"][:4] = 1e-31
    one.step, one.schedule.max_steps = 0, 60
    one.fit(WindowRecorder())
    assert one.optimizer.state[weight]["exp_avg"][:4].eq(0).all()


def test_choosing_threads_changes_nothing_but_their_number(monkeypatch):
    alone, chosen = trainer(), trainer()
    with monkeypatch.context() as patch:
        patch.setattr(torch, "get_num_threads", lambda: 1)
        alone.fit(WindowRecorder())
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    monkeypatch.setattr("distspectral.training.threads.LEAST_GAIN", 1e9)  # so it is one thread again
    try:
        chosen.fit(WindowRecorder())
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    for name, tensor in alone.model.state_dict().items():
        assert torch.allclose(tensor, chosen.model.state_dict()[name], atol=1e-6), name

"""Autoencoder, Siamese network and distillation: two and three gloo ranks take the very steps of one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import optim

from distspectral.comm import collectives
from distspectral.errors import NonFiniteStepError
from distspectral.graph.store import ArrayGraph
from distspectral.models.networks import SpectralNetwork
from distspectral.storage.rows.joined import JoinedVectors
from distspectral.storage.rows.vectors import ArrayVectors
from distspectral.training.autoencoder import AutoencoderConfig, AutoencoderSettings
from distspectral.training.distill import DistillConfig, DistillSettings
from distspectral.training.loop import Trainer, WindowRecorder
from distspectral.training.settings import TrainSettings
from distspectral.training.siamese import SiameseConfig, SiameseSettings
from distspectral.training.step import optimization_step
from tests.datasets import blobs
from tests.ranks import by_ranks

TRAIN: dict[str, Any] = {
    "hidden": (16,),
    "batch_size": 37,
    "max_steps": 12,
    "window_steps": 4,
    "learning_rate": 1e-3,
    "precision": "float32",
    "device": "cpu",
}


class Taught(DistillSettings):
    """Teaches what a function of the rows is, upon a network of random weights."""

    def trainer(self, vectors: Any, graph: object = None) -> Trainer[Any, Any]:
        rows = vectors.block(0, vectors.n_rows)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            trained = SpectralNetwork(vectors.dim, 5, (16,))
        mass = np.linspace(0.5, 1.5, vectors.n_rows)[:, None]
        taught = np.hstack([mass, np.sin(rows[:, :2]), np.cos(rows[:, :1])]).astype(np.float32)
        return self.trainer_upon(trained, JoinedVectors([vectors, ArrayVectors(taught)]))


SETTINGS: dict[str, TrainSettings] = {
    "autoencoder": AutoencoderSettings(train=AutoencoderConfig(n_components=3, corruption=0.2, **TRAIN)),
    "siamese": SiameseSettings(train=SiameseConfig(n_components=3, **TRAIN)),
    "distill": Taught(
        n_functions=3, train=DistillConfig(**{name: value for name, value in TRAIN.items() if name != "hidden"})
    ),
}
ANEW = ("autoencoder", "siamese")
"""Networks of random weights, which may be of float64."""
Result = dict[str, Any]


def inputs() -> tuple[ArrayVectors, ArrayGraph]:
    rows = blobs(211, 5)[0]
    distances = np.square(rows[:, None] - rows[None]).sum(2) + np.diag(np.full(len(rows), np.inf))
    neighbors = np.argsort(distances, axis=1)[:, :4]
    return ArrayVectors(rows), ArrayGraph(neighbors, np.ones(neighbors.shape, np.float32))


def first_steps(name: str) -> Result:
    """Take three float64 steps of plain descent."""
    torch.set_default_dtype(torch.float64)  # before the trainer wraps the network: DDP's buckets have a dtype
    try:
        trainer = SETTINGS[name].trainer(*inputs())
    finally:
        torch.set_default_dtype(torch.float32)
    optimizer = optim.SGD(trainer.model.parameters(), lr=1e-2)
    losses, gradients = [], []
    for step in range(3):
        batch = trainer.sampler.batch(step)
        fields = {k: v.double() if v.is_floating_point() else v for k, v in vars(batch).items()}
        value, _ = optimization_step(trainer.network, trainer.objective, type(batch)(**fields), optimizer)
        losses.append(float(value))
        gradients.append(torch.cat([p.grad.reshape(-1) for p in trainer.model.parameters()]))
    return {"losses": torch.tensor(losses, dtype=torch.float64), "gradients": torch.stack(gradients)}


def rounded_training(name: str) -> Result:
    """Train as :func:`whole_training` does, with factors of products rounded to bfloat16."""
    settings = SETTINGS[name]
    train = settings.train.model_copy(update={"precision": "bfloat16"})
    return whole_training(name, settings.model_copy(update={"train": train}))


def whole_training(name: str, settings: TrainSettings | None = None) -> Result:
    trainer = (settings or SETTINGS[name]).trainer(*inputs())
    observer = WindowRecorder()
    trainer.fit(observer)
    return {
        "losses": torch.tensor([record["loss"] for record in observer.history], dtype=torch.float64),
        "judged": torch.tensor(observer.history[-1].get("held_out_loss", 0.0), dtype=torch.float64),
        "weights": torch.cat([p.detach().reshape(-1) for p in trainer.model.parameters()]),
        "state": trainer.state_dict(),
    }


def timed_training(name: str) -> Result:
    """Train as :func:`whole_training` does, by processes of two threads, which time passes before the first step."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        return whole_training(name)
    finally:
        torch.set_num_threads(before)


def poisoned(name: str) -> str:
    """Give the last rank a row of NaN; return whether its weights moved."""
    trainer = SETTINGS[name].trainer(*inputs())
    before = [p.detach().clone() for p in trainer.model.parameters()]
    batch = trainer.sampler.batch(0)
    if collectives.rank() == collectives.world_size() - 1:
        batch.vectors[:] = torch.nan
    try:
        optimization_step(trainer.network, trainer.objective, batch, trainer.optimizer)
    except NonFiniteStepError:
        same = all(torch.equal(a, b) for a, b in zip(before, trainer.model.parameters(), strict=True))
        return "refused" if same else "moved"
    return "no error"


def everything() -> Result:
    return {
        name: {
            "steps": first_steps(name) if name in ANEW else {},
            "training": whole_training(name),
            "rounded": rounded_training(name),
            "timed": timed_training(name),
            "nan": poisoned(name),
        }
        for name in SETTINGS
    }


alone, together = by_ranks(everything)


@pytest.mark.parametrize("name", ANEW)
def test_losses_and_gradients_equal_those_of_one_process(alone, together, name):
    expected = alone[name]["steps"]
    assert float(expected["gradients"].norm()) > 1e-3, "nothing was compared"
    for rank in together:
        for key, tensor in rank[name]["steps"].items():
            error = float((tensor - expected[key]).norm() / expected[key].norm())
            assert error < 1e-12, f"{key} is off by {error:.1e}: float64 rounding is far less"


@pytest.mark.parametrize("name", SETTINGS)
def test_ranks_train_to_the_weights_of_one_process(alone, together, name):
    expected, first = alone[name]["training"], together[0][name]["training"]
    for found in (rank[name]["training"] for rank in together):
        error = float((found["weights"] - expected["weights"]).abs().max())
        assert error < 1e-3, "the same rows are drawn; Adam's first steps magnify float32 rounding of tiny gradients"
        assert torch.equal(found["weights"], first["weights"])
        for told in ("losses", "judged"):
            torch.testing.assert_close(found[told], expected[told], rtol=1e-4, atol=0)


@pytest.mark.parametrize("name", SETTINGS)
def test_ranks_that_round_factors_hold_the_same_weights_and_lose_what_one_process_loses(alone, together, name):
    exact, rounded = (alone[name][kind]["losses"] for kind in ("training", "rounded"))
    assert not torch.equal(exact, rounded), "nothing was rounded"
    first = together[0][name]["rounded"]["weights"]
    for found in (rank[name]["rounded"] for rank in together):
        assert torch.equal(found["weights"], first)
        torch.testing.assert_close(found["losses"], rounded, rtol=1e-2, atol=0)
        torch.testing.assert_close(found["losses"], exact, rtol=1e-2, atol=0)


@pytest.mark.parametrize("name", SETTINGS)
def test_a_checkpoint_knows_no_precision(alone, name):
    trainer = SETTINGS[name].trainer(*inputs())  # in float32
    trainer.load_state_dict(alone[name]["rounded"]["state"])
    assert {tensor.dtype for tensor in trainer.model.parameters()} == {torch.float32}
    moments = [value for one in trainer.optimizer.state.values() for value in one.values()]
    assert {tensor.dtype for tensor in moments} == {torch.float32}


@pytest.mark.parametrize("name", SETTINGS)
def test_one_process_goes_on_from_the_state_of_several_ranks(together, name):
    trainer = SETTINGS[name].trainer(*inputs())
    state = together[0][name]["training"]["state"]
    trainer.load_state_dict(state)
    assert trainer.step == 12
    assert all(torch.equal(tensor, state["model"][key]) for key, tensor in trainer.model.state_dict().items())


@pytest.mark.parametrize("name", SETTINGS)
def test_a_bad_step_stops_every_rank_before_its_weights_move(together, name):
    assert {rank[name]["nan"] for rank in together} == {"refused"}


@pytest.mark.parametrize("name", SETTINGS)
def test_passes_that_are_timed_reduce_nothing(alone, together, name):
    first, expected = together[0][name]["timed"]["weights"], alone[name]["training"]["weights"]
    for rank in together:
        assert torch.equal(rank[name]["timed"]["weights"], first)
    assert float((first - expected).abs().max()) < 1e-3

from __future__ import annotations

import numpy as np
import pytest
import torch

from distspectral.models.networks import SpectralNetwork
from distspectral.storage.rows.joined import JoinedVectors
from distspectral.storage.rows.vectors import ArrayVectors
from distspectral.training.distill import DistillConfig, DistillSettings
from distspectral.training.growth import N_JUDGED
from distspectral.training.loop import WindowRecorder
from distspectral.training.row_sampling import TaughtRowSampler, held_out_rows, taught_rows

N, D, P, E = 600, 4, 3, 6


def rows():
    return np.random.default_rng(0).normal(size=(N, D)).astype(np.float32)


def trained():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return SpectralNetwork(D, E, (24, 16)).eval()


def beside(functions, mass=None):
    """Return rows with the mass and E - 1 functions beside them."""
    columns = np.column_stack([np.ones(N) if mass is None else mass, functions]).astype(np.float32)
    return JoinedVectors([ArrayVectors(rows()), ArrayVectors(columns)])


def functions_of_units(coefficients):
    """Return what a linear layer behind the trained network's units makes of the rows."""
    with torch.no_grad():
        return (trained().units(torch.from_numpy(rows())).double() @ coefficients).numpy()


def settings(**train):
    base = {"batch_size": 128, "max_steps": 60, "window_steps": 20, "warmup_steps": 5, "precision": "float32"}
    return DistillSettings(n_functions=P, train=DistillConfig(**base | train))


def test_the_last_layer_begins_with_what_comes_nearest():
    wanted = torch.randn(17, E - 1, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    targets = functions_of_units(wanted)
    trainer = settings().trainer_upon(trained(), beside(targets))
    with torch.no_grad():
        made = trainer.model.network(torch.from_numpy(rows()))
    assert made.shape == (N, P)
    assert torch.equal(made[:, 0], torch.ones(N))
    np.testing.assert_allclose(made[:, 1:].numpy(), targets[:, : P - 1], atol=2e-3)


def test_the_trained_network_stays_as_it_is():
    network, targets = trained(), np.sin(rows()[:, [0, 1, 2, 3, 0]])
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    settings().trainer_upon(network, beside(targets)).fit(WindowRecorder())
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_training_explains_more_and_tells_what_is_left_of_rows_never_taught():
    targets = np.sin(2 * rows()[:, [0, 1, 2, 3, 0]])
    observer = WindowRecorder()
    trainer = settings(max_steps=300).trainer_upon(trained(), beside(targets))
    trainer.fit(observer)
    first, last = observer.history[0]["loss"], observer.history[-1]
    assert last["loss"] < 0.5 * first
    assert "held_out_loss" not in observer.history[0]
    held_out = held_out_rows(N)
    with torch.no_grad():
        made = trainer.model.network(torch.from_numpy(rows()[held_out])).numpy()[:, 1:]
    expected = np.square(made - targets[held_out, : P - 1]).mean()
    assert last["held_out_loss"] == pytest.approx(expected, rel=0.05), "a sample of them"
    each = np.square(made - targets[held_out, : P - 1]).mean(0)
    np.testing.assert_allclose(last["held_out_losses"], each, rtol=0.2)
    assert np.mean(last["held_out_losses"]) == pytest.approx(last["held_out_loss"])


def test_rows_held_out_are_never_taught_and_judge_alone():
    held_out = set(held_out_rows(N))
    for step in range(40):
        assert not held_out & set(taught_rows(N, 64, 40, 0, step))
    for step in range(40, 40 + N_JUDGED):
        assert set(taught_rows(N, 64, 40, 0, step)) <= held_out


def test_rows_without_mass_do_not_count():
    targets, mass = np.sin(rows()[:, [0, 1, 2, 3, 0]]), (np.arange(N) % 2).astype(float)
    spoiled = targets.copy()
    spoiled[mass == 0] = 1e6
    losses = []
    for functions in (targets, spoiled):
        observer = WindowRecorder()
        settings().trainer_upon(trained(), beside(functions, mass)).fit(observer)
        losses.append(observer.history[-1]["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_a_network_whose_units_are_dead_is_taught_all_the_same():
    network, targets = trained(), np.sin(rows()[:, [0, 1, 2, 3, 0]])
    with torch.no_grad():
        network.perceptron.trunk[2].bias.fill_(-1e3)
    observer = WindowRecorder()
    settings().trainer_upon(network, beside(targets)).fit(observer)
    assert np.isfinite(observer.history[-1]["loss"])


@pytest.mark.parametrize("n_rows", [40, 200, 600])
def test_few_rows_pass_the_network_once_and_weigh_as_often_as_they_are_drawn(n_rows):
    data = rows()[:n_rows]
    columns = np.column_stack([np.arange(1, n_rows + 1), *np.sin(data.T)]).astype(np.float32)
    sampler = TaughtRowSampler(ArrayVectors(data), ArrayVectors(columns), P, batch_size=512, n_steps=9, seed=0)
    for step in (0, 8, 9):
        batch, drawn = sampler.batch(step), taught_rows(n_rows, 512, 9, 0, step)
        n_expected = len(np.unique(drawn)) if 2 * len(np.unique(drawn)) <= 512 else 512
        assert len(batch.vectors) == n_expected
        assert float(batch.mass.sum()) == pytest.approx(float(columns[drawn, 0].sum()))
        moments = batch.mass @ batch.targets
        np.testing.assert_allclose(moments, columns[drawn, 0] @ columns[drawn, 1:P], rtol=1e-3, atol=0.5)

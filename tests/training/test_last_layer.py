"""The last layer, solved: against dense Rayleigh-Ritz over all edges, on one rank and on several."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import torch

from distspectral.comm import collectives
from distspectral.objectives.batches import EdgeBatch
from distspectral.storage.rows.vectors import ArrayVectors
from distspectral.training.growth import N_JUDGED
from distspectral.training.last_layer import EDGES_PER_UNIT, FEW_ROWS, MANY_EDGES
from distspectral.training.loop import Trainer, WindowRecorder
from distspectral.training.spectral import SpectralSettings
from tests.oracles import all_edges, dense_laplacian, random_graph
from tests.ranks import run_ranks, share_of_batch

N, P = 120, 3


def rows() -> ArrayVectors:
    return ArrayVectors(np.random.default_rng(0).normal(size=(N, 4)).astype(np.float32))


def settings(hidden: int = 12, **train: Any) -> SpectralSettings:
    base = {"batch_size": 64, "max_steps": 30, "window_steps": 10}
    return SpectralSettings(n_components=P, network={"hidden": (16, hidden)}, train=base | train)


class Whole:
    """Gives this rank's share of every edge of a graph as each batch, and notes what it is asked for."""

    def __init__(self, graph: Any, judges: Any = None) -> None:
        self.batches = [all_edges(torch.from_numpy(rows().block(0, N)), one) for one in (graph, judges or graph)]
        self.growth, self.asked = 1, []

    def batch(self, step: int) -> EdgeBatch:
        self.asked.append((step, self.growth))
        batch, world_size = self.batches[step >= 30], collectives.world_size()
        if world_size == 1:
            return batch
        return share_of_batch(batch, [1 / world_size] * world_size, collectives.rank())


def trained(sampler: Any = None, **changes: Any) -> Trainer[Any, Any]:
    """Return a trainer after a few steps, its last layer not solved yet."""
    one = settings(**changes).trainer(rows(), random_graph(N, 4))
    assert one.finish is not None
    if sampler is not None:
        one.sampler, one.finish = sampler, dataclasses.replace(one.finish, sampler=sampler)
    finish, one.finish = one.finish, None
    one.fit(WindowRecorder())
    one.finish = finish
    return one


def lowest(one: Trainer[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the lowest eigenvalues of the graph's Laplacian among functions of the units, by a dense solver."""
    with torch.no_grad():
        units = one.model.network.units(torch.from_numpy(rows().block(0, N))).double().numpy()
    laplacian, degree = dense_laplacian(random_graph(N, 4))
    alive = units[:, np.abs(units).sum(0) > 0]
    return scipy.linalg.eigh(alive.T @ laplacian @ alive, alive.T @ (degree[:, None] * alive), eigvals_only=True)


def values(one: Trainer[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the same among the functions that the network emits."""
    with torch.no_grad():
        f = one.model.network(torch.from_numpy(rows().block(0, N))).double().numpy()
    laplacian, degree = dense_laplacian(random_graph(N, 4))
    return scipy.linalg.eigh(f.T @ laplacian @ f, f.T @ (degree[:, None] * f), eigvals_only=True)


def test_functions_are_the_lowest_that_the_units_span():
    one = trained(Whole(random_graph(N, 4)))
    descended = values(one)
    found = one.finish()
    n_functions = one.model.network.n_functions
    np.testing.assert_allclose(values(one), lowest(one)[:n_functions], atol=1e-5)  # weights are float32
    np.testing.assert_allclose(found["ritz_values"], values(one), atol=1e-5)
    assert found["ritz_sum"] == pytest.approx(sum(found["ritz_values"][:P]))
    assert values(one)[:P].sum() < descended[:P].sum() - 0.01, "there was nothing to solve"


def test_the_model_still_emits_orthonormal_functions():
    one = trained(Whole(random_graph(N, 4)))
    n_updates = int(one.model.orthonormal.n_updates)
    one.finish()
    batch = one.sampler.batches[0]
    with torch.no_grad():
        y = one.model(batch.vectors).double()
    torch.testing.assert_close(y.T @ (batch.mass[:, None] * y), torch.eye(y.shape[1]).double(), atol=1e-4, rtol=0)
    assert int(one.model.orthonormal.n_updates) == n_updates


def test_a_layer_that_other_edges_prefer_stands():
    one = trained(Whole(random_graph(N, 4), judges=random_graph(N, 4)))
    finish = dataclasses.replace(one.finish, sampler=Whole(random_graph(N, 4, seed=1), judges=random_graph(N, 4)))
    weights = one.model.network.perceptron.head.weight.clone()
    assert finish() == {}
    assert torch.equal(one.model.network.perceptron.head.weight, weights)


def test_units_that_carry_fewer_functions_leave_the_layer_as_it_is():
    one = trained(Whole(random_graph(N, 4)), hidden=12)
    with torch.no_grad():
        one.model.network.perceptron.trunk[2].weight[4:] = 0
        one.model.network.perceptron.trunk[2].bias[4:] = 0
    weights = one.model.network.perceptron.head.weight.clone()
    assert one.finish() == {}
    assert torch.equal(one.model.network.perceptron.head.weight, weights)


@pytest.mark.parametrize(("n_rows", "growth"), [(N, MANY_EDGES // 64), (FEW_ROWS + 1, 1)])
def test_edges_are_as_many_as_the_units_need_and_others_judge(n_rows: int, growth: int):
    sampler = Whole(random_graph(N, 4))
    one = trained(sampler)
    sampler.asked.clear()
    dataclasses.replace(one.finish, n_rows=n_rows, n_edges=10**6)()
    n_batches = -(-EDGES_PER_UNIT * 13 // (growth * 64))
    solved = [(step % 30, growth) for step in range(n_batches)]
    assert sampler.asked == solved + [(30 + n, 1) for n in range(N_JUDGED)]
    assert sampler.growth == 1


def test_few_edges_are_not_drawn_many_times():
    sampler = Whole(random_graph(N, 4))
    one = trained(sampler)
    sampler.asked.clear()
    dataclasses.replace(one.finish, n_rows=10**6)()
    assert len(sampler.asked) == 4 * 4 * N / 64 + N_JUDGED


def test_a_training_ends_with_the_layer_solved_and_says_so_in_its_last_window():
    observer = WindowRecorder()
    one = settings().trainer(rows(), random_graph(N, 4))
    one.fit(observer)
    other = trained()
    found = other.finish()
    assert observer.history[-1]["ritz_values"] == pytest.approx(found["ritz_values"], rel=1e-9, abs=1e-12)
    for name, tensor in one.model.state_dict().items():
        # to rounding: sums of many threads are not added up in the same order twice
        torch.testing.assert_close(tensor, other.model.state_dict()[name], rtol=1e-3, atol=1e-4)


# ---- ranks ---------------------------------------------------------------------------------------------------------


def solved_by_ranks() -> dict[str, Any]:
    one = settings().trainer(rows(), random_graph(N, 4))
    sampler = Whole(random_graph(N, 4))
    found = dataclasses.replace(one.finish, sampler=sampler)()
    return {"weight": one.model.network.perceptron.head.weight.detach(), "ritz_sum": found["ritz_sum"]}


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_hold_one_layer_which_is_that_of_one_process(world_size: int, tmp_path: Path):
    alone, ranks = solved_by_ranks(), run_ranks(solved_by_ranks, world_size, tmp_path)
    for found in ranks:
        assert torch.equal(found["weight"], ranks[0]["weight"])
        assert found["ritz_sum"] == pytest.approx(alone["ritz_sum"], rel=1e-9)
    torch.testing.assert_close(ranks[0]["weight"], alone["weight"], rtol=1e-3, atol=1e-3)

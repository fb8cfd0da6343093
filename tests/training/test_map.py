"""The map's batches and trainer: what is drawn, alike on all ranks; what is learned, from finished functions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from distspectral.comm import collectives
from distspectral.graph.store import ArrayGraph
from distspectral.models.encoded import EncodedNetwork
from distspectral.models.networks import Perceptron
from distspectral.models.state import write_state
from distspectral.objectives.batches import MapBatch
from distspectral.objectives.map import MapObjective
from distspectral.stages.train import take_weights
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.rows.vectors import ArrayVectors
from distspectral.training.loop import Trainer, WindowRecorder
from distspectral.training.map import MapConfig, MapSettings, build_map
from distspectral.training.map_sampling import MapSampler
from distspectral.training.step import optimization_step
from tests.datasets import blobs
from tests.ranks import run_ranks

N, P, S = 90, 3, 11
SETTINGS = MapSettings(
    train=MapConfig(
        hidden=(16,),
        batch_size=48,
        n_negatives=S,
        max_steps=60,
        window_steps=20,
        warmup_steps=5,
        precision="float32",
        device="cpu",
    )
)


def graph() -> ArrayGraph:
    rows = blobs(N, 5)[0]
    distances = np.square(rows[:, None] - rows[None]).sum(2) + np.diag(np.full(N, np.inf))
    neighbors = np.argsort(distances, axis=1)[:, :4]
    return ArrayGraph(neighbors, np.linspace(1, 0.2, 4, dtype=np.float32)[None].repeat(N, 0))


def rows() -> ArrayVectors:
    return ArrayVectors(blobs(N, 5)[0])


def functions() -> Perceptron:
    torch.manual_seed(0)
    return Perceptron(5, P, (8,))


def trainer() -> Trainer[Any, Any]:
    return SETTINGS.trainer_upon(functions(), rows(), graph())


def numbered() -> ArrayVectors:
    return ArrayVectors(np.stack([np.arange(N), np.full(N, 3.0)], axis=1))


def test_edges_are_the_graphs_and_negatives_any_rows():
    sampler = MapSampler(numbered(), graph(), batch_size=30, n_negatives=S, seed=4)
    neighbors, met = graph().block(0, N)[0], set()
    for step in range(40):
        batch = sampler.batch(step)
        heads, tails, negatives = (
            batch.vectors[ends, 0].numpy().astype(int) for ends in (batch.heads, batch.tails, batch.negatives)
        )
        assert len(heads) == len(tails) == 30
        assert all(tail in neighbors[head] for head, tail in zip(heads, tails, strict=True))
        assert len(set(negatives)) >= S - 3, "parts of no whole number of rows share one"
        assert float(batch.weights.sum()) == pytest.approx(1)
        met |= set(negatives)
    assert met == set(range(N))


def test_edges_are_drawn_by_the_root_of_their_affinity():
    neighbors = np.stack([(np.arange(N) + 1) % N, (np.arange(N) + 2) % N], axis=1)
    affinities = np.full((N, 2), (0.09, 0.81), np.float32) * np.linspace(1, 4, N, dtype=np.float32)[:, None]
    sampler = MapSampler(numbered(), ArrayGraph(neighbors, affinities), batch_size=30, n_negatives=S, seed=4)
    drawn = np.zeros((N, 2))
    for step in range(400):
        batch = sampler.batch(step)
        heads, tails = (batch.vectors[ends, 0].numpy().astype(int) for ends in (batch.heads, batch.tails))
        np.add.at(drawn, (heads, (tails - heads) % N - 1), 1)
    assert drawn[:, 1].sum() / drawn.sum() == pytest.approx(0.9 / 1.2, abs=0.01)
    assert drawn[-N // 4 :].sum() / drawn[: N // 4].sum() == pytest.approx(
        np.sqrt(affinities[-N // 4 :]).sum() / np.sqrt(affinities[: N // 4]).sum(), rel=0.05
    )


def test_few_rows_are_all_negatives():
    batch = MapSampler(numbered(), graph(), batch_size=30, n_negatives=1000, seed=0).batch(0)
    assert sorted(batch.vectors[batch.negatives, 0].tolist()) == list(range(N))


def test_training_draws_neighbours_together_and_leaves_the_functions_as_they_are():
    made, finished = trainer(), functions()
    observer = WindowRecorder()
    made.fit(observer)
    first, last = observer.history[0], observer.history[-1]
    assert last["loss"] < first["loss"]
    assert last["neighbor_distance"] < 0.3 * last["radius"]
    frozen = made.network.functions.state_dict()  # type: ignore[union-attr]
    assert all(torch.equal(frozen[name], tensor) for name, tensor in finished.state_dict().items())
    assert not any(name.startswith("functions") for name in made.state_dict()["model"])


def test_weights_are_the_same_whatever_was_drawn_before():
    torch.manual_seed(5)
    one = build_map(5, P, SETTINGS)
    torch.manual_seed(6)
    two = build_map(5, P, SETTINGS)
    assert all(torch.equal(one.state_dict()[name], tensor) for name, tensor in two.state_dict().items())


def test_it_goes_on_from_a_state_as_if_never_interrupted():
    whole, observer = trainer(), WindowRecorder()
    whole.fit(observer)
    states: list[dict[str, Any]] = []

    class Keeper(WindowRecorder):
        def checkpoint(self, trainer: Trainer[Any, Any]) -> None:
            if trainer.step == 40:
                states.append({"model": {k: v.clone() for k, v in trainer.model.state_dict().items()}})
                raise KeyboardInterrupt

    stopped = trainer()
    stopped.config = stopped.config.model_copy(update={"checkpoint_steps": 40})
    with pytest.raises(KeyboardInterrupt):
        stopped.fit(Keeper())
    again = trainer()
    again.load_state_dict(stopped.state_dict())
    again.fit(WindowRecorder())
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], tensor)
    assert not torch.equal(states[0]["model"]["head.weight"], whole.model.head.weight)


# ---- weights of an earlier run ---------------------------------------------------------------------------------------


def rotated(functions: Perceptron, offset: float) -> Perceptron:
    """Return the same functions of rows that lie elsewhere by ``offset``: two of them rotated, one mirrored."""
    sin, cos, state = np.sin(0.7), np.cos(0.7), functions.state_dict()
    rotation = torch.tensor([[1, 0, 0], [0, -sin, cos], [0, cos, sin]], dtype=torch.float32)
    head = {name: rotation @ state[name] for name in ("head.weight", "head.bias")}
    return Perceptron.from_state({**state, **head, "input_mean": state["input_mean"] + offset})


def begun(place: str, offset: float) -> dict[str, Any]:
    """Return the places on an earlier map, and on the next one as it begins, whose rows lie elsewhere by ``offset``."""
    first = functions()
    with torch.no_grad():  # as calibration leaves it
        first.head.weight[0], first.head.bias[0] = 0.0, 1.0
    write_state(Artifact(place), "model.pt", EncodedNetwork(first).state())
    earlier = SETTINGS.trainer_upon(first, rows(), graph())
    settings = SETTINGS.model_copy(update={"start_model": place})
    elsewhere = ArrayVectors(rows().gather(np.arange(N)) + np.float32(offset))
    later = settings.trainer_upon(rotated(first, offset), elsewhere, graph())
    take_weights(later.model, settings.first_weights(earlier.model.state_dict(), later, offset != 0), offset != 0)
    places = {}
    for name, made, seen in (("before", earlier, rows()), ("after", later, elsewhere)):
        with torch.no_grad():
            places[name] = made.network(torch.from_numpy(seen.gather(np.arange(N))))
    return places | {"weights": later.model.trunk.head.weight.detach()}


@pytest.mark.parametrize("offset", [0.0, 10.0])
def test_a_map_goes_on_where_the_earlier_one_was_though_functions_have_turned(offset: float, tmp_path: Path):
    found = begun(str(tmp_path / "model"), offset)
    assert float(found["before"].std()) > 0.1, "nothing was compared"
    torch.testing.assert_close(found["after"], found["before"], atol=1e-3, rtol=1e-3)  # float32 at an offset of 10


def test_ranks_begin_with_the_same_weights(tmp_path: Path):
    one, two = run_ranks(begun, 2, tmp_path, str(tmp_path / "model"), 0.0)
    assert torch.equal(one["weights"], two["weights"])


# ---- ranks ---------------------------------------------------------------------------------------------------------


def share_of(batch: MapBatch) -> MapBatch:
    """Return this rank's edges of one process's batch, with its rows."""
    rank, world = collectives.rank(), collectives.world_size()
    own = slice(len(batch.heads) * rank // world, len(batch.heads) * (rank + 1) // world)
    return MapBatch(batch.vectors, batch.heads[own], batch.tails[own], batch.negatives, batch.weights[own])


def step_of(batch: MapBatch) -> dict[str, Any]:
    """Return what a float64 step over this rank's share of a batch gives."""
    torch.set_default_dtype(torch.float64)  # before the trainer wraps the network: DDP's buckets have a dtype
    try:
        made = trainer()
    finally:
        torch.set_default_dtype(torch.float32)
    made.network.double()
    value, total = optimization_step(made.network, made.objective, share_of(batch), made.optimizer)
    gradient = torch.cat([p.grad.reshape(-1) for p in made.model.parameters()])
    return {"value": value, "gradient": gradient, "radius": total["radius"]}


def whole_training() -> dict[str, Any]:
    made, observer = trainer(), WindowRecorder()
    negatives = [made.sampler.batch(step) for step in (0, 1)]
    made.fit(observer)
    return {
        "negatives": torch.cat([one.vectors[one.negatives] for one in negatives]),
        "weights": torch.cat([p.detach().reshape(-1) for p in made.model.parameters()]),
        "loss": observer.history[-1]["loss"],
    }


def batch_of_one_process() -> MapBatch:
    batch = MapSampler(rows(), graph(), batch_size=48, n_negatives=S, seed=0).batch(3)
    return MapBatch(batch.vectors.double(), batch.heads, batch.tails, batch.negatives, batch.weights)


def everything(batch: MapBatch) -> dict[str, Any]:
    return {"step": step_of(batch), "training": whole_training()}


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_take_the_step_of_one_process_and_hold_one_network(world_size: int, tmp_path: Path):
    batch = batch_of_one_process()
    alone, ranks = everything(batch), run_ranks(everything, world_size, tmp_path, batch)
    assert float(alone["step"]["gradient"].norm()) > 1e-3, "nothing was compared"
    for found in ranks:
        for name, tensor in alone["step"].items():
            error = float((found["step"][name] - tensor).norm() / tensor.norm())
            assert error < 1e-12, f"{name} is off by {error:.1e}: float64 rounding is far less"
        assert torch.equal(found["training"]["negatives"], alone["training"]["negatives"])
        assert torch.equal(found["training"]["weights"], ranks[0]["training"]["weights"])
        assert found["training"]["loss"] == pytest.approx(alone["training"]["loss"], rel=0.2)


def test_a_place_that_is_no_number_is_refused():
    objective = MapObjective(build_map(5, P, SETTINGS))
    batch = batch_of_one_process()
    places = torch.full((len(batch.vectors), 2), torch.nan, dtype=torch.float64)
    total = objective.local_sums(places, batch)
    (check,) = objective.propose(total, total).checks
    assert int(check.code) != 0

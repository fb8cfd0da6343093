"""What one process computes, two and three gloo ranks with uneven rows compute too."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest
import torch
from torch import optim

from distspectral.comm import collectives
from distspectral.errors import NonFiniteStepError, RanksDivergedError
from distspectral.graph.config import AffinityConfig, GraphConfig
from distspectral.graph.knn import knn_graph
from distspectral.models.networks import NetworkConfig
from distspectral.models.orthonorm_layer import OrthonormConfig
from distspectral.objectives.batches import EdgeBatch
from distspectral.objectives.spectral import SpectralConfig, SpectralObjective
from distspectral.storage.rows.vectors import ArrayVectors
from distspectral.training.loop import WindowRecorder
from distspectral.training.sampling import EdgeSampler
from distspectral.training.spectral import SpectralSettings, SpectralTrainConfig, build_model
from distspectral.training.step import optimization_step, parallelize
from tests.datasets import blobs
from tests.ranks import by_ranks, share_of_batch

SHARES = {1: (1.0,), 2: (0.83, 0.17), 3: (0.13, 0.61, 0.26)}
CASES = [(dtype, objective) for dtype in ("float32", "float64") for objective in ("trace", "logdet")]
N_STEPS = 4
LONG_STEPS = 80

Result = dict[str, Any]


def data() -> tuple[ArrayVectors, Any]:
    vectors = ArrayVectors(blobs(301, 5)[0])  # 301 rows and 64 edges: neither divides by 2 and 3
    return vectors, knn_graph(vectors, GraphConfig(n_neighbors=8), AffinityConfig())[0]


def settings(objective: str = "logdet", max_steps: int = LONG_STEPS, **train: Any) -> SpectralSettings:
    return SpectralSettings(
        network=NetworkConfig(hidden=(16, 12)),
        spectral=SpectralConfig(objective=objective, oversampling=1),
        orthonorm=OrthonormConfig(decay=0.9),
        train=SpectralTrainConfig(batch_size=64, max_steps=max_steps, patience=0, device="cpu", **train),
        n_components=3,
    )


def global_batches() -> list[EdgeBatch]:
    vectors, graph = data()
    sampler = EdgeSampler(vectors, graph, batch_size=512, laplacian="random_walk", seed=5)
    return [sampler.batch(step) for step in range(N_STEPS)]


def few_steps(batches: list[EdgeBatch], dtype: str, objective_name: str) -> Result:
    """Take plain gradient steps on this rank's share of the batches; return what must not depend on the ranks."""
    chosen = settings(objective_name)
    model = build_model(5, chosen)
    if dtype == "float64":
        model.network.double()
    objective = SpectralObjective(chosen.spectral, model.orthonormal)
    network = parallelize(model.network)
    # In float32 a step's rounding (3e-7) would grow from step to step: every batch meets the same weights there.
    optimizer = optim.SGD(model.network.parameters(), lr=1e-2 if dtype == "float64" else 0.0)
    losses, gradients = [], []
    for batch in batches:
        own = share_of_batch(batch, SHARES[collectives.world_size()], collectives.rank())
        value, _ = optimization_step(network, objective, own, optimizer)
        losses.append(float(value))
        gradients.append(torch.cat([p.grad.reshape(-1) for p in model.network.parameters()]).double())
    return {
        "losses": torch.tensor(losses, dtype=torch.float64),
        "gradients": torch.stack(gradients),
        "factor": model.orthonormal.cholesky_factor.clone(),
    }


def long_run() -> Result:
    """Train on uneven slices; then diverge on purpose."""
    trainer = settings().trainer(*data())
    observer = WindowRecorder()
    batch = trainer.sampler.batch(0)
    trainer.fit(observer)
    factor = trainer.model.orthonormal.cholesky_factor
    result: Result = {
        "sha": hashlib.sha256(factor.numpy().tobytes()).hexdigest(),
        "weights": torch.cat([p.detach().reshape(-1) for p in trainer.model.network.parameters()]),
        "n_edges": len(batch.heads),
        "own_weight": float(batch.weights.sum()),
        "own_mass": float(batch.mass.sum()),
        "ritz_sums": [record["ritz_sum"] for record in observer.history],
        "state": trainer.state_dict(),
        "errors": [],
    }
    collectives.check_identical(factor, "the factor")
    last_rank = collectives.world_size() - 1
    for entry in ((0, 0), (3, 1)):
        perturbed = factor.clone()
        if collectives.rank() == last_rank:
            perturbed[entry] = np.nextafter(float(perturbed[entry]), np.inf)
        result["errors"].append(message_of(perturbed))
    swapped = factor.clone()
    if collectives.rank() == last_rank:
        swapped[2], swapped[3] = factor[3], factor[2]
    result["errors"].append(message_of(swapped))
    return result


def grown_run() -> Result:
    """Train with batches that grow, and return by how much they should have, and the weights."""
    trainer, wanted = settings(max_steps=20).trainer(*data()), []
    judge = trainer.objective.batch_growth  # type: ignore[attr-defined]

    def batch_growth(totals: Any) -> float:
        wanted.append(judge(totals))
        return 4.0

    trainer.objective.batch_growth = batch_growth  # type: ignore[attr-defined]
    trainer.fit(WindowRecorder())
    weights = torch.cat([p.detach().reshape(-1) for p in trainer.model.parameters()])
    return {"wanted": wanted, "growth": trainer.growth, "weights": weights}


def message_of(tensor: torch.Tensor) -> str:
    try:
        collectives.check_identical(tensor, "the factor")
    except RanksDivergedError as error:
        return str(error)
    return "no error"


def poisoned_step(batch: EdgeBatch) -> str:
    """Hand the last rank NaN and return what this rank's step raised, and whether its weights moved."""
    model = build_model(5, settings())
    before = [p.detach().clone() for p in model.network.parameters()]
    own = share_of_batch(batch, SHARES[collectives.world_size()], collectives.rank())
    if collectives.rank() == collectives.world_size() - 1:
        own.vectors[0, 0] = torch.nan
    optimizer = optim.SGD(model.network.parameters(), lr=1e-2)
    try:
        optimization_step(
            parallelize(model.network), SpectralObjective(settings().spectral, model.orthonormal), own, optimizer
        )
    except NonFiniteStepError:
        after = model.network.parameters()
        return "refused" if all(torch.equal(a, b) for a, b in zip(before, after, strict=True)) else "moved"
    return "no error"


def skipping_run() -> Result:
    """Train with NaN on the last rank in step 3, an infinite gradient there in step 8, a Gram without factor in 12."""
    trainer = settings(max_steps=20, window_steps=10).trainer(*data())
    real_batch, real_sums = trainer.sampler.batch, trainer.objective.local_sums
    is_last = collectives.rank() == collectives.world_size() - 1

    def batch(step: int) -> EdgeBatch:
        made = real_batch(step)
        if step == 3 and is_last:
            made.vectors[0, 0] = torch.nan
        return made

    def sums(outputs: torch.Tensor, batch: EdgeBatch) -> dict[str, torch.Tensor]:
        made = real_sums(outputs, batch)
        return made | {"gram": -made["gram"]} if trainer.step == 12 else made

    trainer.sampler.batch, trainer.objective.local_sums = batch, sums
    parameter = next(trainer.model.network.parameters())
    skipped: list[int] = []
    skip = trainer.skipped.skip
    trainer.skipped.skip = lambda step, error: (skipped.append(step), skip(step, error))
    if is_last:
        parameter.register_hook(lambda gradient: gradient * torch.inf if trainer.step == 8 else gradient)
    observer = WindowRecorder()
    trainer.fit(observer)
    return {
        "skipped": skipped,
        "told": [record["skipped_steps"] for record in observer.history],
        "weights": torch.cat([p.detach().reshape(-1) for p in trainer.model.network.parameters()]),
        "factor": trainer.model.orthonormal.cholesky_factor.clone(),
    }


def everything(batches: list[EdgeBatch]) -> Result:
    results: Result = {f"{dtype}-{objective}": few_steps(batches, dtype, objective) for dtype, objective in CASES}
    sums = {
        "a": torch.full((2, 2), float(collectives.rank() + 1), dtype=torch.float64),
        "b": torch.arange(3, dtype=torch.float64),
    }
    return results | {
        "long": long_run(),
        "poisoned": poisoned_step(batches[0]),
        "skipping": skipping_run(),
        "grown": grown_run(),
        "sums": collectives.all_reduce_sum(sums),
    }


alone, together = by_ranks(everything, global_batches)


@pytest.mark.parametrize(("dtype", "objective"), CASES)
def test_loss_gradients_and_factor_equal_those_of_one_process(alone, together, dtype, objective):
    # One rounding of a float32 is 6e-8, of a float64 1e-16; the sums themselves are float64 on both.
    tolerance = {"float32": 1e-6, "float64": 1e-10}[dtype]
    expected = alone[f"{dtype}-{objective}"]
    for rank in together:
        for name, tensor in rank[f"{dtype}-{objective}"].items():
            error = float((tensor - expected[name]).norm() / expected[name].norm())
            assert error < tolerance, f"{name} is off by {error:.1e}"


def test_factor_and_weights_are_bit_identical_after_many_steps(together):
    first = together[0]["long"]
    for rank in together[1:]:
        assert rank["long"]["sha"] == first["sha"]
        assert torch.equal(rank["long"]["weights"], first["weights"])
        assert rank["long"]["ritz_sums"] == first["ritz_sums"]


def test_one_ulp_on_one_rank_is_noticed_by_every_rank(together):
    last = len(together) - 1
    for rank in together:
        for message in rank["long"]["errors"]:
            assert f"the factor on ranks [{last}] differs from rank 0's" in message


def test_weights_masses_and_edges_of_all_ranks_add_up(together):
    long = [rank["long"] for rank in together]
    assert sum(one["n_edges"] for one in long) == 64
    assert sum(one["own_weight"] for one in long) == pytest.approx(1, rel=1e-12)
    assert sum(one["own_mass"] for one in long) == pytest.approx(1, rel=1e-12)
    assert len({one["own_weight"] for one in long}) == len(long), "slices differ, and so must their shares"


def test_ranks_reach_the_ritz_sum_of_one_process(alone, together):
    # Other batches, same expectation: only the last window's noise sets them apart.
    expected = alone["long"]["ritz_sums"][-1]
    assert together[0]["long"]["ritz_sums"][-1] == pytest.approx(expected, rel=0.25)


def test_one_process_goes_on_from_the_state_of_several_ranks(together):
    trainer = settings(max_steps=LONG_STEPS + 20).trainer(*data())
    state = together[0]["long"]["state"]
    state["schedule"] = trainer.schedule.state_dict()  # the budget was raised
    trainer.load_state_dict(state)
    observer = WindowRecorder()
    trainer.fit(observer)
    assert trainer.step == LONG_STEPS + 20
    assert int(trainer.model.orthonormal.n_updates) == LONG_STEPS + 20
    assert observer.history[-1]["ritz_sum"] < 2 * together[0]["long"]["ritz_sums"][-1]


def test_nan_on_one_rank_stops_every_rank_before_its_weights_move(together):
    assert [rank["poisoned"] for rank in together] == ["refused"] * len(together)


def test_all_ranks_skip_the_same_steps_and_go_on_alike(alone, together):
    first = together[0]["skipping"]
    assert alone["skipping"]["skipped"] == first["skipped"] == [3, 8, 12]
    assert first["told"] == [2, 3]
    assert bool(first["weights"].isfinite().all())
    for rank in together[1:]:
        assert rank["skipping"]["skipped"] == first["skipped"]
        assert torch.equal(rank["skipping"]["weights"], first["weights"])
        assert torch.equal(rank["skipping"]["factor"], first["factor"])


def test_reduced_sums_keep_names_and_shapes(together):
    total = sum(range(1, len(together) + 1))
    for rank in together:
        assert torch.equal(rank["sums"]["a"], torch.full((2, 2), float(total), dtype=torch.float64))
        assert torch.equal(rank["sums"]["b"], len(together) * torch.arange(3, dtype=torch.float64))


def test_all_ranks_judge_the_same_sums_and_grow_alike(alone, together):
    first = together[0]["grown"]
    assert len(first["wanted"]) == len(alone["grown"]["wanted"]) == 1
    for rank in together:
        assert rank["grown"]["wanted"] == first["wanted"]
        assert rank["grown"]["growth"] == 4
        assert torch.equal(rank["grown"]["weights"], first["weights"])

"""The supervised objective: two and three gloo ranks take the very steps of one, though classes span ranks."""

from __future__ import annotations

import hashlib
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import nn, optim

from distspectral.comm import collectives
from distspectral.errors import ConfigError, NonFiniteStepError, TooFewClassesError
from distspectral.objectives.batches import LabeledBatch
from distspectral.objectives.dscl import DSCLConfig, DSCLObjective
from distspectral.storage.rows.vectors import ArrayVectors
from distspectral.training.config import TrainConfig
from distspectral.training.dscl import DSCLSettings, build_model
from distspectral.training.loop import WindowRecorder
from distspectral.training.step import optimization_step, parallelize
from tests.ranks import by_ranks

SHARES = {1: (1.0,), 2: (0.83, 0.17), 3: (0.13, 0.61, 0.26)}
DIM, N_CLASSES = 5, 7
Result = dict[str, Any]


def data() -> ArrayVectors:
    rng = np.random.default_rng(0)
    classes = rng.integers(0, 12, 211)
    return ArrayVectors(2 * rng.standard_normal((12, DIM))[classes] + rng.standard_normal((211, DIM)), classes)


def settings(trunk: str | None = None, **train: Any) -> DSCLSettings:
    return DSCLSettings(
        network={"hidden": (16,), "trunk": trunk},
        dscl=DSCLConfig(n_components=6, rows_per_class=7, train_classes="all"),
        train=TrainConfig(batch_size=50, max_steps=12, window_steps=4, device="cpu", **train),
    )


def batches() -> list[LabeledBatch]:
    """Batches sorted by class, so that a class or two span ranks; class 3 has one row, class 5 none."""
    rng = np.random.default_rng(1)
    made = []
    for _ in range(3):
        classes = np.sort(np.concatenate([[3], rng.choice([0, 1, 2, 4, 6], 45)]))
        rows = torch.from_numpy(rng.standard_normal((46, DIM)).astype(np.float32))
        made.append(LabeledBatch(rows, torch.from_numpy(classes), N_CLASSES))
    return made


def own_share(batch: LabeledBatch) -> LabeledBatch:
    shares, rank = SHARES[collectives.world_size()], collectives.rank()
    cuts = [round(sum(shares[:r]) * len(batch.classes)) for r in range(len(shares) + 1)]
    own = slice(cuts[rank], cuts[rank + 1])
    return LabeledBatch(batch.vectors[own], batch.classes[own], batch.n_classes)


def few_steps(dtype: torch.dtype, width: int, loss: Literal["projector", "softmax"]) -> Result:
    """Take plain gradient steps; sixteen hidden units and a bias give at most seventeen independent columns."""
    chosen = settings().model_copy(update={"dscl": DSCLConfig(n_components=width, loss=loss)})
    model = build_model(DIM, chosen)
    network = parallelize(model.network.to(dtype))
    objective = chosen.objective(model)
    # In float32 a step's rounding would grow from step to step: every batch meets the same weights there.
    optimizer = optim.SGD(model.network.parameters(), lr=1e-2 if dtype == torch.float64 else 0.0)
    losses, gradients = [], []
    for batch in batches():
        own = own_share(batch)
        own = LabeledBatch(own.vectors.to(dtype), own.classes, own.n_classes)
        value, _ = optimization_step(network, objective, own, optimizer)
        losses.append(float(value))
        gradients.append(torch.cat([p.grad.reshape(-1) for p in model.network.parameters()]).double())
    return {
        "losses": torch.tensor(losses, dtype=torch.float64),
        "gradients": torch.stack(gradients),
        "factor": model.orthonormal.cholesky_factor.clone(),
    }


def whole_training() -> Result:
    trainer = settings(max_gradient_norm=0.5).trainer(data())
    observer = WindowRecorder()
    trainer.fit(observer)
    return {
        "sha": hashlib.sha256(trainer.model.orthonormal.cholesky_factor.numpy().tobytes()).hexdigest(),
        "weights": torch.cat([p.detach().reshape(-1) for p in trainer.model.network.parameters()]),
        "losses": torch.tensor([record["loss"] for record in observer.history], dtype=torch.float64),
        "state": trainer.state_dict(),
    }


def message_of_poison(batch: LabeledBatch, kind: str) -> str:
    """Hand the last rank NaN, or every rank one class only; return the error's class and whether weights moved."""
    model = build_model(DIM, settings())
    before = [p.detach().clone() for p in model.network.parameters()]
    own = own_share(batch)
    if kind == "one class":
        own = LabeledBatch(own.vectors, torch.zeros_like(own.classes), own.n_classes)
    elif collectives.rank() == collectives.world_size() - 1:
        own.vectors[0, 0] = torch.nan
    optimizer = optim.SGD(model.network.parameters(), lr=1e-2)
    try:
        optimization_step(parallelize(model.network), DSCLObjective(model.orthonormal), own, optimizer)
    except (NonFiniteStepError, TooFewClassesError) as error:
        same = all(torch.equal(a, b) for a, b in zip(before, model.network.parameters(), strict=True))
        return f"{type(error).__name__}, {'refused' if same else 'moved'}"
    return "no error"


def with_batch_norm(dim: int, n_outputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(dim, 8), nn.BatchNorm1d(8), nn.Linear(8, n_outputs))


def batch_norm_error() -> str:
    try:
        settings(trunk=f"{__name__}:with_batch_norm").trainer(data())
    except ConfigError as error:
        return str(error)
    return "no error"


CASES = [
    (dtype, width, loss)
    for dtype in (torch.float32, torch.float64)
    for width in (6, 24)
    for loss in ("projector", "softmax")
]


def everything() -> Result:
    results: Result = {f"{case}": few_steps(*case) for case in CASES}
    return results | {
        "training": whole_training(),
        "nan": message_of_poison(batches()[0], "nan"),
        "one class": message_of_poison(batches()[0], "one class"),
        "batch norm": batch_norm_error(),
    }


alone, together = by_ranks(everything)


@pytest.mark.parametrize("case", CASES)
def test_loss_gradients_and_factor_equal_those_of_one_process(alone, together, case):
    # Rounding of the network's own products: 6e-8 in float32, 1e-16 in float64; sums are float64 on both. Where rank
    # is lost, the smallest direction that counts has a singular value of 1e-3 and magnifies that.
    dtype, width, _ = case
    tolerance = {torch.float32: 1e-6, torch.float64: 1e-10}[dtype] * (100 if width > 17 else 1)
    expected = alone[f"{case}"]
    assert float(expected["gradients"].norm()) > 1e-3, "nothing was compared"
    for rank in together:
        for name, tensor in rank[f"{case}"].items():
            error = float((tensor - expected[name]).norm() / expected[name].norm())
            assert error < tolerance, f"{name} is off by {error:.1e}"


def test_ranks_train_to_the_weights_of_one_process(alone, together):
    for rank in together:
        error = (rank["training"]["weights"] - alone["training"]["weights"]).abs().max()
        assert float(error) < 1e-4, "the same rows are drawn, so only float32 rounding sets them apart"
        torch.testing.assert_close(rank["training"]["losses"], alone["training"]["losses"], rtol=1e-4, atol=0)
        assert rank["training"]["sha"] == together[0]["training"]["sha"], "bit-identical on all ranks"


def test_one_process_goes_on_from_the_state_of_several_ranks(together):
    trainer = settings().trainer(data())
    trainer.load_state_dict(together[0]["training"]["state"])
    assert trainer.step == 12
    for name, tensor in trainer.model.state_dict().items():
        assert torch.equal(tensor, together[0]["training"]["state"]["model"][name]), name


def test_bad_steps_stop_every_rank_before_its_weights_move(together):
    assert {rank["nan"] for rank in together} == {"NonFiniteStepError, refused"}
    assert {rank["one class"] for rank in together} == {"TooFewClassesError, refused"}


def test_batch_statistics_are_refused_where_ranks_would_differ(alone, together):
    assert alone["batch norm"] == "no error"
    for rank in together:
        assert f"would differ between the {len(together)} workers" in rank["batch norm"]

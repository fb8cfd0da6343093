from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from distspectral.models.orthonorm_layer import OrthonormalLayer, OrthonormConfig
from distspectral.objectives.batches import LabeledBatch
from distspectral.objectives.dscl import DSCLObjective
from distspectral.spectral import DSCLLoss
from tests.objectives.labeled import E, batch, step


def make(decay=0.5) -> DSCLObjective:
    return DSCLObjective(OrthonormalLayer(E, OrthonormConfig(decay=decay)))


def test_value_and_gradient_are_those_of_the_drop_in_loss():
    one = batch()
    gradient, value, _ = step(make(), one)
    f = one.vectors.clone().requires_grad_()
    loss = DSCLLoss()(f, one.classes)
    loss.backward()
    assert float(value) == pytest.approx(float(loss.detach()), rel=1e-6)
    torch.testing.assert_close(gradient, f.grad, rtol=1e-5, atol=1e-7)  # float32 roundings of the rows


def test_moving_average_follows_the_mean_of_the_rows():
    objective, one = make(), batch()
    step(objective, one)
    factor = objective.shared_state()["the moving-average factor"]
    mean = (one.vectors.double().T @ one.vectors.double()) / len(one.vectors)
    torch.testing.assert_close(factor @ factor.T, mean, rtol=1e-6, atol=1e-8)


def test_a_window_tells_the_rank_and_the_classes_of_a_step():
    objective = make()
    flat = batch()
    flat.vectors[:, 3] = flat.vectors[:, 0] - 2 * flat.vectors[:, 1]
    sums = objective.window_sums(step(objective, flat)[2])
    assert objective.metrics(sums, 1) == {"classes_per_step": 5.0, "rank": 3}
    more = objective.window_sums(step(objective, batch(n_classes=3, seed=1))[2])
    both = {name: sums[name] + more[name] for name in sums}
    assert objective.metrics(both, 2) == {"classes_per_step": 4.0, "rank": 4}


def test_absent_classes_of_a_batch_are_not_counted():
    objective, one = make(), batch()
    wider = LabeledBatch(one.vectors, one.classes, 9)
    assert float(step(objective, wider)[1]) == pytest.approx(float(step(objective, one)[1]), rel=1e-12)
    assert objective.metrics(objective.window_sums(step(objective, wider)[2]), 1)["classes_per_step"] == 5


def test_moving_a_batch_keeps_what_it_holds():
    one = batch()
    moved = one.to(torch.device("cpu"))
    assert torch.equal(moved.vectors, one.vectors)
    assert torch.equal(moved.classes, one.classes)
    assert moved.n_classes == one.n_classes


def operations(n_rows: int) -> int:
    """Return the floating-point operations in products of a step on so many rows, of eight a class."""
    one = LabeledBatch(torch.randn(n_rows, E), torch.arange(n_rows) // 8, n_rows // 8)
    with FlopCounterMode(display=False) as counter:
        step(make(), one)
    return counter.get_total_flops()


def test_the_cost_of_a_step_is_linear_in_the_batch():
    assert operations(4 * 128) == pytest.approx(4 * operations(128), rel=0.05), (
        "not sixteen times, as of n x n matrices"
    )

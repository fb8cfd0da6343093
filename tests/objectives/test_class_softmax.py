from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from distspectral.models.orthonorm_layer import OrthonormalLayer, OrthonormConfig
from distspectral.objectives.batches import LabeledBatch
from distspectral.objectives.class_softmax import ClassSoftmaxObjective
from distspectral.objectives.dscl import DSCLConfig
from distspectral.spectral import ClassSoftmaxLoss
from tests.objectives.labeled import E, batch, step

CONFIG = DSCLConfig(loss="softmax", ridge=0.3, temperature=0.1)


def make() -> ClassSoftmaxObjective:
    return ClassSoftmaxObjective(OrthonormalLayer(E, OrthonormConfig(decay=0.5)), CONFIG)


def test_value_and_gradient_are_those_of_the_drop_in_loss():
    one = batch()
    gradient, value, _ = step(make(), one)
    f = one.vectors.clone().requires_grad_()
    loss = ClassSoftmaxLoss(CONFIG.ridge, CONFIG.temperature)(f, one.classes)
    loss.backward()
    assert float(value) == pytest.approx(float(loss.detach()), rel=1e-6)
    torch.testing.assert_close(gradient, f.grad, rtol=1e-5, atol=1e-7)  # float32 roundings of the rows
    assert float(gradient.norm()) > 1e-2, "nothing was compared"


def test_moving_average_follows_the_mean_of_unit_rows():
    objective, one = make(), batch()
    step(objective, one)
    rows = torch.nn.functional.normalize(one.vectors.double(), dim=1)
    factor = objective.shared_state()["the moving-average factor"]
    torch.testing.assert_close(factor @ factor.T, rows.T @ rows / len(rows), rtol=1e-6, atol=1e-8)


def test_a_window_tells_the_rank_and_the_classes_that_occur():
    objective, one = make(), batch()
    one.vectors[:, 3] = one.vectors[:, 0] - 2 * one.vectors[:, 1]
    wider = LabeledBatch(one.vectors, one.classes, 9)
    sums = objective.window_sums(step(objective, wider)[2])
    assert objective.metrics(sums, 1) == {"classes_per_step": 5.0, "rank": 3}
    assert float(step(make(), wider)[1]) == pytest.approx(float(step(make(), one)[1]), rel=1e-12)


def operations(n_rows: int) -> int:
    """Return the floating-point operations in products of a step on so many rows of eight classes."""
    one = LabeledBatch(torch.randn(n_rows, E), torch.arange(n_rows) % 8, 8)
    with FlopCounterMode(display=False) as counter:
        step(make(), one)
    return counter.get_total_flops()


def test_the_cost_of_a_step_is_linear_in_the_batch():
    assert operations(4 * 256) == pytest.approx(4 * operations(256), rel=0.05), (
        "not sixteen times, as of n x n matrices"
    )

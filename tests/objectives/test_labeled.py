"""What the objectives on labelled rows refuse alike."""

from __future__ import annotations

import pytest
import torch

from distspectral.errors import NonFiniteStepError, TooFewClassesError
from distspectral.models.orthonorm_layer import OrthonormalLayer, OrthonormConfig
from distspectral.objectives.class_softmax import ClassSoftmaxObjective
from distspectral.objectives.dscl import DSCLConfig, DSCLObjective
from tests.objectives.labeled import E, batch, step

OBJECTIVES = {
    "projector": DSCLObjective,
    "softmax": lambda layer: ClassSoftmaxObjective(layer, DSCLConfig(loss="softmax")),
}


@pytest.fixture(params=OBJECTIVES)
def objective(request):
    return OBJECTIVES[request.param](OrthonormalLayer(E, OrthonormConfig(decay=0.5)))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_sums_that_are_not_finite_are_refused(objective, bad):
    one = batch()
    one.vectors[3, 1] = bad
    with pytest.raises(NonFiniteStepError, match="embedding of the batch"):
        step(objective, one)


def test_one_class_is_refused(objective):
    with pytest.raises(TooFewClassesError, match="1 class"):
        step(objective, batch(n_classes=1))

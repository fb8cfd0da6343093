from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from distspectral.errors import NonFiniteStepError
from distspectral.objectives.batches import TeachingBatch
from distspectral.objectives.distillation import DistillationObjective
from distspectral.spectral.checks import raise_first


def batch(n_rows=12, seed=0, mass=None):
    generator = torch.Generator().manual_seed(seed)
    targets = torch.randn(n_rows, 3, generator=generator)
    weights = torch.rand(n_rows, generator=generator) if mass is None else torch.full((n_rows,), mass)
    return TeachingBatch(torch.zeros(n_rows, 2), targets, weights)


def objective():
    return DistillationObjective(nn.Linear(2, 3))


def value(outputs, taught):
    one = objective()
    sums = one.local_sums(outputs, taught)
    return one.propose(sums, sums)


def test_the_value_is_the_share_of_the_functions_squares_that_is_left_unexplained():
    taught = batch(mass=1.0)
    assert float(value(taught.targets, taught).value) == 0
    mean_square = float(taught.targets.square().mean())
    assert float(value(torch.zeros(12, 3), taught).value) == pytest.approx(mean_square)


def test_rows_count_by_their_mass():
    taught = batch()
    error = torch.randn(12, 3, generator=torch.Generator().manual_seed(1))
    expected = (taught.mass @ error.square().mean(1)) / taught.mass.sum()
    assert float(value(taught.targets + error, taught).value) == pytest.approx(float(expected))
    rows = torch.arange(12) >= 6
    light = TeachingBatch(taught.vectors, taught.targets, taught.mass * rows)
    error[rows] = 0
    assert float(value(taught.targets + error, light).value) == 0


def test_shares_of_ranks_add_up():
    taught, outputs = batch(), torch.randn(12, 3, generator=torch.Generator().manual_seed(2))
    one = objective()
    cuts = (slice(0, 5), slice(5, 12))
    parts = [TeachingBatch(*(tensor[cut] for tensor in vars(taught).values())) for cut in cuts]
    locals_ = [one.local_sums(outputs[cut], part) for cut, part in zip(cuts, parts, strict=True)]
    total = {name: locals_[0][name] + locals_[1][name] for name in locals_[0]}
    losses = [one.propose(local, total).loss for local in locals_]
    assert float(losses[0] + losses[1]) == pytest.approx(float(value(outputs, taught).value))


def test_rows_without_mass_teach_nothing_and_infinities_are_refused():
    assert float(value(torch.ones(12, 3), batch(mass=0.0)).value) == 0
    with pytest.raises(NonFiniteStepError):
        raise_first(value(torch.full((12, 3), torch.nan), batch()).checks)


def test_functions_behind_those_taught_are_left_out():
    columns = torch.arange(12.0).reshape(2, 6)
    made = TeachingBatch.of(torch.zeros(2, 4), columns, np.array([1, 3]), 3)
    assert made.mass.tolist() == [0.0, 18.0]
    assert torch.equal(made.targets, columns[:, 1:3])

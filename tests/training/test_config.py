from __future__ import annotations

import pytest

from distspectral.training.autoencoder import AutoencoderConfig
from distspectral.training.config import TrainConfig
from distspectral.training.distill import DistillConfig
from distspectral.training.siamese import SiameseConfig
from distspectral.training.spectral import StartConfig


def test_budgets_grow_with_the_root_of_the_rows_up_to_the_most():
    budgets = [AutoencoderConfig().steps(n_rows) for n_rows in (700, 7_000, 28_000, 70_000, 10**9)]
    assert budgets == [300, 633, 1265, 2000, 2000]
    assert SiameseConfig().steps(10) == TrainConfig().steps(10) == 300, "few rows need steps, too"
    assert (StartConfig().steps(10), DistillConfig().steps(10)) == (150, 150), "of two trainings each needs fewer"


def test_a_budget_that_is_said_is_the_budget():
    assert {TrainConfig(max_steps=7).steps(n_rows) for n_rows in (10, 10**9)} == {7}


@pytest.mark.parametrize(("dim", "width"), [(11, 128), (300, 300), (784, 512)])
def test_an_encoder_is_as_wide_as_its_rows_within_limits(dim, width):
    assert AutoencoderConfig().widths(dim) == (width, width, width)
    assert AutoencoderConfig(hidden=(9, 8)).widths(dim) == (9, 8)

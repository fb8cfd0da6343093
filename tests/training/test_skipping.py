from __future__ import annotations

import logging

import pytest

from distspectral.errors import NonFiniteStepError, NumericalError, RankDeficientError
from distspectral.training.autoencoder import AutoencoderConfig
from distspectral.training.config import TrainConfig
from distspectral.training.siamese import SiameseConfig
from distspectral.training.skipping import SkippedSteps
from distspectral.training.spectral import SpectralTrainConfig

OWNERS = [(TrainConfig, "train"), (SpectralTrainConfig, "train"), (AutoencoderConfig, "autoencoder"),
          (SiameseConfig, "siamese")]  # fmt: skip


def too_many(config: TrainConfig, error: NumericalError) -> None:
    skipped = SkippedSteps(config, n_steps=100)
    for step in range(3):
        skipped.skip(step, error)


@pytest.mark.parametrize(("kind", "owner"), OWNERS)
@pytest.mark.parametrize(
    ("error", "fields"),
    [
        (NonFiniteStepError("it holds NaN"), ["max_skipped_steps", "learning_rate", "max_gradient_norm"]),
        (RankDeficientError("function 3 depends"), ["max_skipped_steps", "batch_size"]),
    ],
)
def test_what_ends_training_names_the_parameters_of_its_own_section(
    kind: type[TrainConfig], owner: str, error: NumericalError, fields: list[str]
) -> None:
    with pytest.raises(type(error), match=r"stopped at step 2: 3 steps in a row .* the last one: (it|func)") as caught:
        too_many(kind(max_skipped_steps=3), error)
    assert list(caught.value.parameters) == [f"{owner}.{field}" for field in fields]
    assert all(name in str(caught.value) for name in caught.value.parameters)
    words = {name: name.partition(".")[2] for name in caught.value.parameters}
    assert f"{owner}." not in str(caught.value.in_words(words))


def test_a_step_that_is_skipped_is_told_without_a_remedy(caplog: pytest.LogCaptureFixture) -> None:
    skipped = SkippedSteps(TrainConfig(), n_steps=100)
    with caplog.at_level(logging.WARNING):
        skipped.skip(7, NonFiniteStepError("it holds NaN"))
    assert caplog.messages == ["step 7 is skipped: it holds NaN"]
    assert (skipped.total, skipped.in_a_row) == (1, 1)
    skipped.taken()
    assert (skipped.total, skipped.in_a_row) == (1, 0)

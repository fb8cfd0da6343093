"""What a run of a metric consists of."""

from __future__ import annotations

from typing import Any

import pytest

from distspectral.errors import ConfigError, DistSpectralError, TooFewClassesError
from distspectral.recipes import MetricRecipe

DIM = 12


def recipe(**sections: Any) -> MetricRecipe:
    return MetricRecipe.model_validate({"dim": DIM, **sections})


def test_a_metric_is_learned_from_the_rows_as_they_are_without_a_graph() -> None:
    one = recipe()
    assert one.chain == ("pack", "train", "embed", "evaluate")
    assert one.passage == ("pack", "embed")
    assert one.seen == {"vector": "pack"}
    assert (one.searched, one.may_see, one.encoders) == ("pack", ("pack",), {})
    assert one.embedded_graph is None
    assert list(one.trainings) == ["train"]
    assert one.knowing(0.1) == one


def test_training_has_the_budget_of_the_kind_unless_told_otherwise() -> None:
    assert recipe().metric.train.model_dump().items() >= MetricRecipe.budget.items()


def test_the_settings_are_the_sections() -> None:
    one = recipe(seed=3, start_from="s3://bucket/before", dscl={"n_components": 6}, network={"hidden": (7,)})
    settings = one.trainings["train"]
    assert (settings.seed, settings.start_from) == (3, "s3://bucket/before/training")
    assert (settings.dscl, settings.network, settings.train) == (one.dscl, one.network, one.train)
    assert "6 components" in one.learned


@pytest.mark.parametrize(
    ("sections", "has_labels", "kind", "parameters"),
    [
        ({}, False, ConfigError, ("data.label_column",)),
        ({"train": {"precision": "bfloat16"}}, True, ConfigError, ("train.precision",)),
        (
            {"train": {"batch_size": 9}, "dscl": {"n_components": 3, "rows_per_class": 5}},
            True,
            TooFewClassesError,
            ("train.batch_size", "dscl.rows_per_class"),
        ),
        (
            {"train": {"batch_size": 50}, "dscl": {"n_components": 50}},
            True,
            ConfigError,
            ("dscl.n_components", "train.batch_size"),
        ),
    ],
)
def test_what_is_bound_to_fail_is_refused_by_the_names_of_its_parameters(
    sections: dict[str, Any], has_labels: bool, kind: type[DistSpectralError], parameters: tuple[str, ...]
) -> None:
    recipe().check(100, has_labels=True)
    with pytest.raises(kind) as caught:
        recipe(**sections).check(100, has_labels=has_labels)
    assert type(caught.value) is kind
    assert caught.value.parameters == parameters
    assert all(name in str(caught.value) for name in parameters), str(caught.value)


def test_the_softmax_bears_rounding_and_any_width() -> None:
    train = {"batch_size": 50, "precision": "bfloat16"}
    recipe(train=train, dscl={"loss": "softmax", "n_components": 50}).check(100, has_labels=True)


def test_a_trunk_that_cannot_be_imported_is_refused_before_anything_runs() -> None:
    with pytest.raises(ConfigError, match=r"network\.trunk: 'nowhere:net' cannot be imported"):
        recipe(network={"trunk": "nowhere:net"}).check(100, has_labels=True)

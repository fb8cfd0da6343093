from __future__ import annotations

import inspect
import pickle

import pytest

from distspectral import errors

CLASSES = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, Exception)]


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_error_survives_pickling_with_its_message(kind: type[Exception]) -> None:
    copy = pickle.loads(pickle.dumps(kind("part-00017.parquet: row 3 is bad", ["data.on_bad_rows"])))
    assert type(copy) is kind
    assert str(copy) == "part-00017.parquet: row 3 is bad"
    assert copy.parameters == ("data.on_bad_rows",)


def test_an_error_is_told_in_the_callers_words() -> None:
    error = errors.ConfigError(
        "train.max_steps: is 3, above train.max_steps_in_all of 2; see train.device",
        ["train.max_steps", "train.max_steps_in_all", "train.device"],
    )
    told = error.in_words({"train.max_steps": "max_steps", "train.max_steps_in_all": "budget"})
    assert type(told) is errors.ConfigError
    assert str(told) == "max_steps: is 3, above budget of 2; see train.device"


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_error_belongs_to_the_family_and_says_what_it_means(kind: type[Exception]) -> None:
    assert issubclass(kind, errors.DistSpectralError)
    assert kind.__doc__

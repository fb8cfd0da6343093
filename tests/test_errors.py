from __future__ import annotations

import inspect
import pickle

import pytest

from distspectral import errors

CLASSES = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, Exception)]


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_error_survives_pickling_with_its_message(kind: type[Exception]) -> None:
    copy = pickle.loads(pickle.dumps(kind("part-00017.parquet: row 3 is bad")))
    assert type(copy) is kind
    assert str(copy) == "part-00017.parquet: row 3 is bad"


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_error_belongs_to_the_family_and_says_what_it_means(kind: type[Exception]) -> None:
    assert issubclass(kind, errors.DistSpectralError)
    assert kind.__doc__

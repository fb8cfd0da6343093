from __future__ import annotations

import subprocess
import sys

import pytest
from pydantic import ValidationError

from distspectral.config.ray import ActorCount, RayConfig, WorkerCount
from distspectral.orchestration.engine import LocalEngine, RayEngine, make_engine


def test_bounds_of_the_pool_must_be_in_order() -> None:
    assert ActorCount(min=2, max=2).max == 2
    assert ActorCount(min=2).max is None
    with pytest.raises(ValidationError, match="min 3 is above max 2"):
        ActorCount(min=3, max=2)


def test_workers_are_a_number_bounds_or_as_many_as_are_useful() -> None:
    assert (RayConfig().min_workers, RayConfig().max_workers) == (1, None)
    assert (RayConfig(workers=2).min_workers, RayConfig(workers=2).max_workers) == (2, 2)
    elastic = RayConfig.model_validate({"workers": {"min": 2, "max": 5}})
    assert (elastic.min_workers, elastic.max_workers) == (2, 5)
    assert WorkerCount(max=3).min == 1
    with pytest.raises(ValidationError, match="min 3 is above max 2"):
        RayConfig.model_validate({"workers": {"min": 3, "max": 2}})


def test_the_engine_follows_the_config() -> None:
    assert isinstance(make_engine(RayConfig(enabled=False)), LocalEngine)
    assert isinstance(make_engine(RayConfig()), RayEngine)


def test_making_and_closing_an_engine_does_not_import_ray() -> None:
    code = (
        "import sys; from distspectral.config.ray import RayConfig;"
        "from distspectral.orchestration.engine import make_engine;"
        "make_engine(RayConfig()).close(); print('ray' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"

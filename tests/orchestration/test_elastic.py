from __future__ import annotations

import pytest
from pydantic import ValidationError

from distspectral.config.ray import RayConfig, WorkerCount


def test_workers_are_a_number_or_bounds() -> None:
    assert (RayConfig().min_workers, RayConfig().max_workers) == (2, 2)
    elastic = RayConfig.model_validate({"workers": {"min": 2, "max": 5}})
    assert (elastic.min_workers, elastic.max_workers) == (2, 5)
    assert WorkerCount(max=3).min == 1
    with pytest.raises(ValidationError, match="min 3 is above max 2"):
        RayConfig.model_validate({"workers": {"min": 3, "max": 2}})

from __future__ import annotations

import pytest
from pydantic import ValidationError

from distspectral.errors import ConfigError
from distspectral.graph.config import AffinityConfig, GraphConfig, check


@pytest.mark.parametrize("kind", ["self_tuning", "gaussian"])
def test_scale_neighbor_beyond_the_neighbours_is_refused(kind):
    with pytest.raises(ConfigError, match=r"affinity.scale_neighbor: is 7, but each row has only 5") as refused:
        check(5, AffinityConfig(kind=kind))
    assert refused.value.parameters == ("affinity.scale_neighbor", "graph.n_neighbors")
    check(7, AffinityConfig(kind=kind))


@pytest.mark.parametrize("kind", ["fuzzy", "uniform"])
def test_scale_neighbor_is_free_where_no_scale_is_used(kind):
    check(5, AffinityConfig(kind=kind))


@pytest.mark.parametrize("values", [{"n_neighbors": 0}, {"block_rows": 0}, {"device": "tpu"}, {"k": 3}])
def test_values_out_of_range_are_refused(values):
    with pytest.raises(ValidationError):
        GraphConfig(**values)


@pytest.mark.parametrize(("text", "n_bytes"), [("64MiB", 64 << 20), ("1.5GiB", 3 << 29), (1 << 30, 1 << 30)])
def test_memory_is_read_with_its_unit(text, n_bytes):
    assert GraphConfig(task_memory=text).task_memory == n_bytes


@pytest.mark.parametrize(("text", "message"), [("63MiB", "greater than or equal to 67108864"), ("much", "byte string")])
def test_memory_without_unit_or_too_little_is_refused(text, message):
    with pytest.raises(ValidationError, match=message):
        GraphConfig(task_memory=text)

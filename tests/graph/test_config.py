from __future__ import annotations

import pytest
from pydantic import ValidationError

from distspectral.errors import ConfigError
from distspectral.graph.config import AffinityConfig, GraphConfig, check


@pytest.mark.parametrize("kind", ["self_tuning", "gaussian"])
def test_scale_neighbor_beyond_the_neighbours_is_refused(kind):
    with pytest.raises(ConfigError, match=r"affinity.scale_neighbor: is 7, but each row has only 5"):
        check(5, AffinityConfig(kind=kind))
    check(7, AffinityConfig(kind=kind))


@pytest.mark.parametrize("kind", ["fuzzy", "uniform"])
def test_scale_neighbor_is_free_where_no_scale_is_used(kind):
    check(5, AffinityConfig(kind=kind))


@pytest.mark.parametrize("values", [{"n_neighbors": 0}, {"block_rows": 0}, {"device": "tpu"}, {"k": 3}])
def test_values_out_of_range_are_refused(values):
    with pytest.raises(ValidationError):
        GraphConfig(**values)

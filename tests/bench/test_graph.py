from __future__ import annotations

import pytest

from distspectral.bench.graph import compare_searches
from distspectral.datasets import write_vectors
from distspectral.errors import ConfigError
from distspectral.storage.source.dataset import Source, SourceConfig
from tests.datasets import blobs


def test_methods_are_measured_side_by_side_in_the_promised_form(tmp_path):
    source = Source.open(SourceConfig(path=write_vectors(str(tmp_path), blobs(1500, 6, 1)[0], n_shards=2)))
    result = compare_searches(source, 5, ("distspectral", "exact"), dtype="float16", n_functions=3)
    close, same = (method.pop("mean_sin2") for method in result["methods"])
    assert same < 1e-9
    assert close < 0.05
    assert {key: result[key] for key in ("rows", "dim", "k")} == {"rows": 1500, "dim": 6, "k": 5}
    ours, exact = result["methods"]
    assert set(ours) == {"name", "recall", "components", "core_seconds", "wall_seconds", "peak_rss_bytes"}
    assert (ours["name"], exact["name"]) == ("distspectral", "exact")
    assert exact["recall"] == 1.0
    assert ours["recall"] >= 0.98
    assert ours["components"] == exact["components"]
    assert ours["core_seconds"] > 0
    assert ours["peak_rss_bytes"] > 1 << 20


def test_eigenvectors_need_the_exact_graph(tmp_path):
    source = Source.open(SourceConfig(path=write_vectors(str(tmp_path), blobs(100, 6, 1)[0])))
    with pytest.raises(ConfigError, match="exact"):
        compare_searches(source, 5, ("distspectral",), n_functions=3)

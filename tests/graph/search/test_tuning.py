from __future__ import annotations

import numpy as np
import pytest

from distspectral.errors import ConfigError
from distspectral.graph.config import GraphConfig
from distspectral.graph.search.cells import Cells, fit_centroids, fit_coarse
from distspectral.graph.search.tuning import SETTING, Setting, tune
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.rows.vectors import ArrayVectors
from tests.datasets import blobs


def test_a_target_out_of_reach_names_the_keys_that_bring_it_nearer():
    rows = np.zeros((2000, 4), np.float32)  # which no cells tell apart
    config = GraphConfig(n_neighbors=5, solver="exact").model_copy(update={"task_memory": 1 << 14})
    with pytest.raises(ConfigError, match=r"graph.target_recall: 0.985 .* graph.task_memory = 16,384") as refused:
        tune(ArrayVectors(rows), config, np.arange(50), np.tile(np.arange(50, 55), (50, 1)))
    assert refused.value.parameters == ("graph.target_recall", "graph.task_memory")


@pytest.mark.parametrize("n_cells", [20, 600])
def test_a_setting_is_read_as_it_was_written(tmp_path, n_cells):
    centroids = fit_centroids(blobs(1500, 4)[0], n_cells, 0)
    coarse = fit_coarse(centroids, 0)
    assert (coarse is None) == (n_cells == 20)
    groups = np.arange(len(centroids), dtype=np.int32) // 7
    written = Setting(Cells(centroids, 2, 0.25, coarse), groups, "hnsw", 0.99, 0.987, 1.5, 12.0)
    artifact = Artifact(str(tmp_path))
    assert Setting.read(artifact) is None
    written.write(artifact)
    assert artifact.has(SETTING)
    found = Setting.read(artifact)
    for name in ("centroids", "coarse", "max_extra", "eps"):
        np.testing.assert_array_equal(getattr(found.cells, name), getattr(written.cells, name))
    np.testing.assert_array_equal(found.groups, groups)
    for name in ("solver", "local_target", "predicted_recall", "copies", "microseconds"):
        assert getattr(found, name) == getattr(written, name)

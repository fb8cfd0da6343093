from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from distspectral.errors import SearchFailedError
from distspectral.graph.config import GraphConfig
from distspectral.graph.search.cells import Cells
from distspectral.graph.search.merging import MOST_COMPLETED, completed_lists, short_rows
from distspectral.graph.search.through_cells import COMPLETED, search_cells, sweep
from distspectral.graph.search.tuning import Forecast, Setting
from distspectral.graph.store import read_neighbors
from distspectral.mapping import local_map
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.artifact.manifest import Shard
from distspectral.storage.rows.vectors import ArrayVectors
from tests.datasets import blobs

ROWS, _ = blobs(900, 4, n_clusters=40)
CONFIG = GraphConfig(metric="l2", n_neighbors=6, method="cells", block_rows=300, solver="exact")


def receipt(name, short):
    return Shard(name=name, n_rows=1, n_bytes=1, details={"short": short})


def test_short_rows_of_all_groups_are_named_once():
    groups = [receipt("cell-0", [7, 900]), receipt("cell-1", []), receipt("cell-2", [3, 7])]
    assert short_rows(groups).tolist() == [3, 7, 900]


def test_too_many_short_rows_are_an_error_that_names_where_they_are():
    few, many = receipt("cell-00001.arrow", [1]), receipt("cell-00002.arrow", list(range(MOST_COMPLETED)))
    assert len(short_rows([few, many])) == MOST_COMPLETED
    few.details["short"].append(MOST_COMPLETED)
    with pytest.raises(SearchFailedError, match=r"16,385 rows .* in cell-00002.arrow \(16,384\), cell-0000") as refused:
        short_rows([few, many])
    assert all(name in str(refused.value) for name in refused.value.parameters)
    assert refused.value.parameters == ("graph.n_neighbors", "graph.seed", "graph.method")


def test_a_row_without_neighbours_among_all_is_an_error():
    squared = np.array([[1, 2], [1, np.inf]], np.float32)
    with pytest.raises(SearchFailedError, match=r"1 rows, the first of them row 8, found fewer than 2"):
        completed_lists(np.array([5, 8]), (np.ones((2, 2), np.int64), squared))


def test_short_rows_of_all_blocks_share_one_pass(tmp_path):
    artifact = Artifact(str(tmp_path))
    forecast = Forecast(0.5, 0.0, 1.0, 0.0, 10.0, 10.0, 1.0)
    Setting(Cells(ROWS[:200], 0, 0.0), np.arange(200, dtype=np.int32) // 50, "exact", 1.0, forecast).write(artifact)
    passes = []

    def mapper(function, items, description, *, on_gpu=False):
        passes.append((description, len(items)))
        return local_map(function, items, description)

    done: dict[str, Shard] = {}
    found = search_cells(ArrayVectors(ROWS), artifact, done, CONFIG, mapper)
    assert [n for description, n in passes if "completing" in description] == [3], "once over three blocks"
    n_completed = found.metrics["completed_rows"]
    assert 300 < n_completed < 900
    parts = [read_neighbors(artifact, shard.name) for shard in found.shards]
    squared = np.concatenate([part[1] for part in parts])
    expected = np.sort(cdist(ROWS, ROWS, "sqeuclidean"), axis=1)[:, 1:7]
    assert np.isclose(squared, expected, rtol=1e-4).all(axis=1).sum() >= n_completed, "nearest of all, not of a cell"
    assert np.isfinite(squared).all()
    sweep(artifact, done)
    assert not artifact.has(COMPLETED)

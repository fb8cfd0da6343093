from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from distspectral.graph import linking, links
from distspectral.graph.runs import Lists, shard_runs
from distspectral.graph.store import NEIGHBORS, SQUARED_DISTANCES, ArrayGraph, write_rows
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.artifact.output import Output
from distspectral.storage.rows.by_row import ByRow
from distspectral.storage.rows.vectors import MappedVectors
from tests.datasets import packed


def backwards(function, items, description, *, on_gpu=False):
    yield from map(function, reversed(items))


def pieces():
    """Groups of rows far from each other, the largest of several hundred rows, in an order that mixes them."""
    rng = np.random.default_rng(0)
    sizes, places = (300, 150, 7, 6, 5, 40), ([0, 0], [40, 0], [95, 0], [0, 130], [0, 160], [-300, 0])
    rows = np.concatenate([rng.normal(size=(n, 2)) + place for n, place in zip(sizes, places, strict=True)])
    return rows[rng.permutation(len(rows))].astype(np.float32)


@pytest.mark.parametrize("most_of_one", [links.MOST_OF_ONE, 3])
def test_tasks_find_the_links_that_one_process_finds(tmp_path, monkeypatch, most_of_one):
    monkeypatch.setattr(links, "MOST_OF_ONE", most_of_one)
    monkeypatch.setattr(links, "BASE_ROWS", 50)
    monkeypatch.setattr(linking, "TASK_ROWS", 100)
    rows = pieces()
    squared = np.sort(cdist(rows, rows, "sqeuclidean"), axis=1)[:, 1:5].astype(np.float32)
    ids = np.argsort(cdist(rows, rows), axis=1, kind="stable")[:, 1:5]
    vectors = packed(tmp_path, rows, sizes=(200, 308))
    output = Output(Artifact(str(tmp_path / "lists")), "neighbors", "print", {}, {})
    output.begin()
    columns = {NEIGHBORS: ids, SQUARED_DISTANCES: squared}
    shards = [
        write_rows(
            output.artifact,
            f"part-{first}",
            len(rows),
            {name: one[first : first + 60] for name, one in columns.items()},
        )
        for first in range(0, len(rows), 60)
    ]
    lists = Lists(output.artifact, len(rows), SQUARED_DISTANCES)
    found = linking.find_links(lists, shard_runs(shards, 60), vectors, "l2", ByRow(output), backwards)
    expected = links.find_links(ArrayGraph(ids, squared), MappedVectors(vectors))
    assert found.components == expected.components == 6
    assert len(found.rows) == 6, "two pieces that are nearest to each other link twice, so there is another round"
    for one, other in zip(found.arrays().values(), expected.arrays().values(), strict=True):
        np.testing.assert_array_equal(one, other)

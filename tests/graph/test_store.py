from __future__ import annotations

import pickle

import numpy as np
import pytest

from distspectral.graph.store import AFFINITIES, NEIGHBORS, ArrayGraph, MappedGraph, write_rows
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.artifact.output import Output

RNG = np.random.default_rng(0)
IDS = RNG.integers(0, 100, (100, 4))
WEIGHTS = RNG.random((100, 4)).astype(np.float16)


@pytest.fixture(params=["array", "mapped", "mapped-u64"])
def graph(request, tmp_path):
    if request.param == "array":
        return ArrayGraph(IDS, WEIGHTS)
    artifact = Artifact(str(tmp_path / "graph"))
    output = Output(artifact, "graph", "f", {}, {})
    output.begin()
    n_rows_global = 1 << 33 if request.param == "mapped-u64" else 100
    cuts = [(0, 1), (1, 60), (60, 61), (61, 100)]
    shards = [
        write_rows(artifact, f"part-{i:05d}.arrow", n_rows_global, {NEIGHBORS: IDS[a:b], AFFINITIES: WEIGHTS[a:b]})
        for i, (a, b) in enumerate(cuts)
    ]
    output.commit(shards, {}, {})
    return MappedGraph(artifact)


def equal(found, rows):
    np.testing.assert_array_equal(found[0], IDS[rows])
    np.testing.assert_array_equal(found[1], WEIGHTS[rows].astype(np.float32))
    assert found[0].dtype == np.int64
    assert found[1].dtype == np.float32


def test_blocks_across_shards_are_as_written(graph):
    assert (graph.n_rows, graph.n_neighbors) == (100, 4)
    for start, stop in ((0, 100), (0, 1), (59, 62), (99, 100), (7, 7)):
        equal(graph.block(start, stop), np.arange(start, stop))


def test_rows_come_in_the_order_asked_with_repeats(graph):
    rows = RNG.integers(0, 100, 500)
    equal(graph.gather(rows), rows)
    equal(graph.gather(rows[:0]), rows[:0])


def test_graph_survives_pickling(graph):
    equal(pickle.loads(pickle.dumps(graph)).block(3, 70), np.arange(3, 70))


def test_rows_that_do_not_exist_are_refused(graph):
    with pytest.raises(IndexError):
        graph.gather(np.array([0, 100]))


def test_stored_ids_are_small_where_they_fit(tmp_path):
    artifact = Artifact(str(tmp_path))
    for n_rows, expected in ((1 << 32, "uint64"), ((1 << 32) - 1, "uint32")):
        write_rows(artifact, "part", n_rows, {NEIGHBORS: IDS})
        assert str(artifact.read_table("part").schema.field(NEIGHBORS).type.value_type) == expected

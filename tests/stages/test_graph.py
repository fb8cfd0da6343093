from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from distspectral.errors import ConfigError, ConstantDataError, TooFewRowsError
from distspectral.graph.components import component_labels
from distspectral.graph.config import AffinityConfig, GraphConfig
from distspectral.graph.knn import knn_graph
from distspectral.graph.store import MappedGraph
from distspectral.stages.graph import affinities
from distspectral.stages.neighbors import neighbors
from distspectral.storage.artifact.cache import NodeCache
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.artifact.output import Output
from distspectral.storage.rows.vectors import ArrayVectors
from tests.datasets import UNEVEN, blobs, packed

GRAPH = GraphConfig(n_neighbors=5, block_rows=23)
AFFINITY = AffinityConfig(scale_neighbor=3)
ROWS, _ = blobs(100, 6)


def output(folder: Path, stage: str) -> Output:
    return Output(Artifact(str(folder / stage)), stage, "fingerprint", {}, {})


def run(folder: Path, vectors: Artifact, mapper=None, graph=GRAPH, affinity=AFFINITY):
    options = {} if mapper is None else {"mapper": mapper}
    neighbors(vectors, output(folder, "neighbors"), graph, **options)
    return affinities(Artifact(str(folder / "neighbors")), output(folder, "graph"), affinity, **options)


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for stage in ("neighbors", "graph")
        for path in sorted((folder / stage).glob("*"))
        if path.is_file()
    }


class Interrupted(Exception):
    pass


class Fragile:
    """Runs items in reverse order and dies after some that write a shard; counts what was asked."""

    def __init__(self, n_survive: int) -> None:
        self.n_survive = n_survive
        self.n_asked: list[int] = []

    def __call__(self, function, items, description, *, on_gpu=False):
        if description not in ("searching neighbours", "weighing edges"):
            yield from map(function, reversed(items))
            return
        self.n_asked.append(len(items))
        for position, item in enumerate(reversed(items)):
            if position == self.n_survive:
                raise Interrupted
            yield function(item)


@pytest.fixture
def vectors(tmp_path):
    return packed(tmp_path, ROWS, sizes=UNEVEN)


@pytest.mark.parametrize("kind", ["self_tuning", "fuzzy", "gaussian", "uniform", "shared_neighbors"])
def test_stages_write_the_graph_of_the_estimator(tmp_path, vectors, kind):
    affinity = AffinityConfig(kind=kind, scale_neighbor=3)
    manifest = run(tmp_path, vectors, affinity=affinity)
    expected, facts = knn_graph(ArrayVectors(ROWS), GRAPH, affinity)
    graph = MappedGraph(Artifact(str(tmp_path / "graph")))
    for found, wanted in zip(graph.block(0, 100), expected.block(0, 100), strict=True):
        np.testing.assert_array_equal(found, wanted)
    assert {**manifest.properties, "metric": "l2"} == {"n_rows": 100, "component_file": ".component.npy", **facts}
    labels = Artifact(str(tmp_path / "graph")).load_array(".component.npy")
    np.testing.assert_array_equal(labels, component_labels(expected))
    assert len(np.unique(labels)) == 3
    assert [shard.name for shard in manifest.shards] == [f"part-{i:05d}.arrow" for i in range(5)]
    assert [shard.n_rows for shard in manifest.shards] == [23, 23, 23, 23, 8]


def test_neighbours_do_not_depend_on_shards_or_blocks(tmp_path, vectors):
    run(tmp_path / "a", vectors)
    other = packed(tmp_path / "other", ROWS, sizes=(100,))
    run(tmp_path / "b", other, graph=GraphConfig(n_neighbors=5))
    a, b = (MappedGraph(Artifact(str(tmp_path / name / "graph"))).block(0, 100) for name in "ab")
    np.testing.assert_array_equal(a[0], b[0])
    np.testing.assert_array_equal(a[1], b[1])


@pytest.mark.parametrize("n_survive", [0, 1, 4])
def test_interrupted_run_continues_to_identical_files(tmp_path, vectors, n_survive):
    run(tmp_path / "whole", vectors)
    broken = tmp_path / "broken"
    with pytest.raises(Interrupted):
        neighbors(vectors, output(broken, "neighbors"), GRAPH, Fragile(n_survive))
    again = Fragile(99)
    neighbors(vectors, output(broken, "neighbors"), GRAPH, again)
    found = Artifact(str(broken / "neighbors"))
    with pytest.raises(Interrupted):
        affinities(found, output(broken, "graph"), AFFINITY, Fragile(n_survive))
    affinities(found, output(broken, "graph"), AFFINITY, again)
    assert again.n_asked == [5 - n_survive] * 2
    assert digests(broken) == digests(tmp_path / "whole")


def test_neighbors_manifest_says_k_rows_and_duplicates(tmp_path):
    rows = np.concatenate([ROWS, np.repeat(ROWS[:1], 10, axis=0)])
    manifest = neighbors(packed(tmp_path, rows), output(tmp_path, "neighbors"), GRAPH)
    assert manifest.properties == {"k": 5, "n_rows": 110, "searched": "pack"}
    assert manifest.metrics == {"metric": "l2", "surplus_duplicates": 5}


def test_too_few_rows_are_refused_before_anything_is_written(tmp_path):
    with pytest.raises(TooFewRowsError, match=r"has 5 rows.*at least 6"):
        neighbors(packed(tmp_path, ROWS[:5]), output(tmp_path, "neighbors"), GRAPH)
    assert not (tmp_path / "neighbors").exists()


def test_equal_rows_are_refused(tmp_path):
    with pytest.raises(ConstantDataError):
        neighbors(packed(tmp_path, np.ones((20, 3), np.float32)), output(tmp_path, "neighbors"), GRAPH)


def test_scale_beyond_the_neighbours_is_refused(tmp_path, vectors):
    with pytest.raises(ConfigError, match="scale_neighbor"):
        run(tmp_path, vectors, affinity=AffinityConfig(scale_neighbor=6))


def test_remote_lists_and_scales_are_fetched_once_for_all_tasks(tmp_path, vectors, s3):
    cache = NodeCache(str(tmp_path / "cache"), 1 << 30)

    def remote(stage: str) -> Output:
        return Output(Artifact(s3.uri(f"weighed/{stage}"), cache), stage, "fingerprint", {}, {})

    neighbors(vectors, remote("neighbors"), GraphConfig(n_neighbors=5, block_rows=10))
    before = len(s3.log)
    affinities(Artifact(s3.uri("weighed/neighbors"), cache), remote("graph"), AFFINITY)
    fetched: Counter[str] = Counter()
    for request in s3.log[before:]:
        if request.method == "GET":
            fetched[request.key.removeprefix("weighed/")] += request.n_bytes
    scales, graph_bytes = 128 + 100 * 4, 100 * 5 * (4 + 2)
    assert fetched["graph/.by-row/scales.npy"] == scales, "ten tasks weigh edges"
    lists = sum(n_bytes for key, n_bytes in fetched.items() if key.startswith("neighbors/part"))
    assert lists == 100 * 5 * (4 + 4 + 4), "distances for the scales, then both columns"
    whole = [shard.n_bytes for shard in Artifact(s3.uri("weighed/graph")).manifest().shards]
    assert sum(n_bytes for key, n_bytes in fetched.items() if key.startswith("graph/part")) == sum(whole) > graph_bytes
    run(tmp_path / "local", vectors, graph=GraphConfig(n_neighbors=5, block_rows=10))
    for found, wanted in zip(
        *(MappedGraph(Artifact(uri)).block(0, 100) for uri in (s3.uri("weighed/graph"), str(tmp_path / "local/graph"))),
        strict=True,
    ):
        np.testing.assert_array_equal(found, wanted)


def test_numbers_of_all_rows_are_gone_when_the_graph_is_done_and_a_graph_in_one_keeps_none(tmp_path):
    rows = np.random.default_rng(0).normal(size=(120, 2)).astype(np.float32)
    manifest = run(tmp_path, packed(tmp_path, rows), affinity=AFFINITY, graph=GraphConfig(n_neighbors=9))
    assert manifest.properties["component_file"] is None
    assert manifest.files == {}
    names = {path.name for path in (tmp_path / "graph").iterdir()}
    assert names == {".config.yaml", ".manifest.json", *(shard.name for shard in manifest.shards)}

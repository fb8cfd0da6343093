from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from distspectral.datasets import write_vectors
from distspectral.errors import DamagedArtifactError
from distspectral.graph.store import AFFINITIES, NEIGHBORS, MappedGraph, edge_blocks, write_rows
from distspectral.stages.pack import PackConfig, pack
from distspectral.storage.artifact.cache import NodeCache
from distspectral.storage.artifact.directory import MANIFEST, Artifact
from distspectral.storage.artifact.manifest import Manifest, Shard
from distspectral.storage.artifact.output import Output
from distspectral.storage.rows.shard_rows import LAYOUT, ShardRows
from distspectral.storage.rows.vectors import FleetingVectors, MappedVectors
from distspectral.storage.source.dataset import Source, SourceConfig
from tests.datasets import blobs, packed, vectors_output
from tests.storage.s3 import Request, S3Server

DIM = 256
SHARD_ROWS = 2500
SHARD_BYTES = SHARD_ROWS * DIM * 4
ROWS, LABELS = blobs(4 * SHARD_ROWS, DIM)

EDGES = (
    (NEIGHBORS, np.random.default_rng(0).integers(0, 4000, (4000, 8))),
    (AFFINITIES, np.random.default_rng(1).random((4000, 8)).astype(np.float16)),
)


@pytest.fixture(scope="module")
def packed_remote(s3: S3Server, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URI of an artifact of four shards of 2.5 MB of vectors."""
    ids = np.array([f"row {row}" for row in range(len(ROWS))])
    folder = tmp_path_factory.mktemp("rows")
    write_vectors(str(folder), ROWS, labels=LABELS, ids=ids, sizes=[SHARD_ROWS] * 4)
    source = Source.open(SourceConfig(path=str(folder), id_column="id", label_column="label"))
    pack(source, vectors_output(s3.uri("shard-rows"), source), PackConfig())
    return s3.uri("shard-rows")


@pytest.fixture
def remote(packed_remote: str, tmp_path: Path) -> Artifact:
    """The same, on a node that has no copies yet."""
    return Artifact(packed_remote, NodeCache(str(tmp_path / "cache"), 1 << 30))


class Since:
    """The requests since it was made."""

    def __init__(self, s3: S3Server) -> None:
        self._log, self._first = s3.log, len(s3.log)

    @property
    def requests(self) -> list[Request]:
        return self._log[self._first :]

    @property
    def n_bytes(self) -> int:
        return sum(request.n_bytes for request in self.requests)


def n_opening(s3: S3Server, n_shards: int) -> int:
    """Return how many requests opening an artifact of so many shards takes; the shards themselves are not there."""
    places = {"vector": {"dtype": "<f4", "width": 6, "batches": [(10, 64)]}}
    shards = [
        Shard(name=f"part-{i:05d}.arrow", n_rows=10, n_bytes=300, details={LAYOUT: places}) for i in range(n_shards)
    ]
    properties = {"dim": 6, "dtype": "float32", "mean": [0.0] * 6, "variance": 1.0, "has_labels": False}
    artifact = Artifact(s3.uri(f"opening-{n_shards}"))
    manifest = Manifest(stage="pack", fingerprint="f", shards=shards, properties=properties)
    artifact.write_json(MANIFEST, manifest.model_dump())
    since = Since(s3)
    vectors = MappedVectors(artifact)
    assert (vectors.n_rows, vectors.dim, vectors.scale) == (10 * n_shards, 6, 1.0)
    return len(since.requests)


def test_opening_takes_as_many_requests_whatever_the_shards(s3: S3Server) -> None:
    assert n_opening(s3, 100) == n_opening(s3, 400) <= 2


@pytest.mark.parametrize(("start", "stop"), [(100, 300), (2000, 3000), (0, 10_000)])
def test_a_block_fetches_its_own_bytes(s3: S3Server, remote: Artifact, start: int, stop: int) -> None:
    vectors, since = MappedVectors(remote), Since(s3)
    np.testing.assert_array_equal(vectors.block(start, stop), ROWS[start:stop])
    assert since.n_bytes <= 1.2 * (stop - start) * DIM * 4
    n_shards = (stop - 1) // SHARD_ROWS - start // SHARD_ROWS + 1
    assert len(since.requests) <= 2 * n_shards, "each is opened once and read once"


def test_blocks_of_one_shard_open_it_once(s3: S3Server, remote: Artifact) -> None:
    vectors, since = MappedVectors(remote), Since(s3)
    for start in range(0, SHARD_ROWS, 500):
        vectors.block(start, start + 500)
    assert [request.method for request in since.requests] == ["HEAD"] + ["GET"] * 5


def test_a_few_rows_are_fetched_alone_and_many_by_copies(s3: S3Server, remote: Artifact, tmp_path: Path) -> None:
    vectors, since = MappedVectors(remote), Since(s3)
    few = np.array([2600, 2601, 2605])
    np.testing.assert_array_equal(vectors.gather(few), ROWS[few])
    assert since.n_bytes <= SHARD_BYTES / 8
    many = np.random.default_rng(0).permutation(2 * SHARD_ROWS)
    np.testing.assert_array_equal(vectors.gather(many), ROWS[many])
    assert len(list((tmp_path / "cache").glob("*.arrow"))) == 2, "shards of which no row was asked for stay away"
    since = Since(s3)
    np.testing.assert_array_equal(vectors.gather(many), ROWS[many])
    np.testing.assert_array_equal(vectors.block(0, 5000), ROWS[:5000])
    assert not since.requests
    again = pickle.loads(pickle.dumps(vectors))
    since = Since(s3)
    np.testing.assert_array_equal(again.block(0, 5000), ROWS[:5000])
    np.testing.assert_array_equal(FleetingVectors(remote).gather(many), ROWS[many])
    assert {request.key for request in since.requests} == {"shard-rows/.manifest.json"}, "the node has them"


def test_a_few_rows_again_and_again_are_copied_at_last(s3: S3Server, remote: Artifact, tmp_path: Path) -> None:
    vectors, since = MappedVectors(remote), Since(s3)
    for row in range(0, 2000, 10):
        rows = np.array([row, row + 300])
        np.testing.assert_array_equal(vectors.gather(rows), ROWS[rows])
    assert len(list((tmp_path / "cache").glob("*.arrow"))) == 1
    assert since.n_bytes <= 1.25 * SHARD_BYTES + 100_000, "an eighth in pieces, then the file, ids and labels included"


def test_copies_stay_open_up_to_half_of_the_cache(packed_remote: str, tmp_path: Path) -> None:
    vectors = MappedVectors(Artifact(packed_remote, NodeCache(str(tmp_path), int(4.5 * SHARD_BYTES))))
    rows = np.random.default_rng(0).permutation(len(ROWS))
    np.testing.assert_array_equal(vectors.gather(rows), ROWS[rows])
    for copy in tmp_path.glob("*.arrow"):
        copy.unlink()
    mapped = [line for line in Path("/proc/self/maps").read_text().splitlines() if str(tmp_path) in line]
    assert 1 <= len(mapped) <= 2, "the others were closed, so their place on the disk is free"
    np.testing.assert_array_equal(vectors.gather(rows), ROWS[rows])


@pytest.mark.parametrize("reread", [False, True])
def test_what_is_larger_than_the_cache_is_fetched_in_pieces(
    s3: S3Server, packed_remote: str, tmp_path: Path, reread: bool
) -> None:
    artifact = Artifact(packed_remote, NodeCache(str(tmp_path), 3 * SHARD_BYTES))
    rows = ShardRows(artifact, artifact.manifest().shards, ["vector"], reread=reread)
    drawn, since = np.random.default_rng(0).permutation(len(ROWS))[:100], Since(s3)
    for _ in range(3):
        np.testing.assert_array_equal(rows.gather(drawn)[0], ROWS[drawn])
    assert since.n_bytes < 3 * len(ROWS) * DIM * 4, "only rows between first and last, and no ids and labels"
    assert not list(tmp_path.glob("*.arrow"))


def test_without_a_cache_rows_are_read_into_memory(packed_remote: str) -> None:
    vectors = MappedVectors(Artifact(packed_remote))
    rows = np.random.default_rng(0).integers(0, len(ROWS), 3000)
    np.testing.assert_array_equal(vectors.gather(rows), ROWS[rows])


def test_ids_and_labels_are_fetched_without_the_vectors(s3: S3Server, remote: Artifact) -> None:
    vectors, since = MappedVectors(remote), Since(s3)
    labels = vectors.labels()
    assert labels is not None
    np.testing.assert_array_equal(labels.to_numpy(), LABELS)
    assert since.n_bytes < SHARD_BYTES
    assert vectors.ids()[2600].as_py() == "row 2600"


def test_shards_that_are_not_asked_for_need_not_be_there(tmp_path: Path) -> None:
    artifact = packed(tmp_path, ROWS[:100], sizes=[50, 50])
    (tmp_path / "vectors" / "part-00000.arrow").unlink()
    vectors = MappedVectors(artifact)
    np.testing.assert_array_equal(vectors.block(60, 70), ROWS[60:70])
    np.testing.assert_array_equal(vectors.gather(np.array([99, 50])), ROWS[[99, 50]])
    with pytest.raises(FileNotFoundError):
        vectors.gather(np.array([0, 99]))


def test_a_shard_that_was_cut_off_is_damage(tmp_path: Path) -> None:
    vectors = MappedVectors(packed(tmp_path, ROWS[:100], sizes=[100]))
    os.truncate(tmp_path / "vectors" / "part-00000.arrow", 5000)
    with pytest.raises(DamagedArtifactError, match=r"vectors/part-00000\.arrow: holds 5000 bytes, its receipt says"):
        vectors.block(0, 1)


def test_views_outlast_the_shard(tmp_path: Path) -> None:
    vectors = MappedVectors(packed(tmp_path, ROWS[:100], sizes=[100]))
    block = vectors.block(10, 90)
    vectors.release()
    del vectors
    np.testing.assert_array_equal(block, ROWS[10:90])


@pytest.fixture
def graph(s3: S3Server, tmp_path: Path) -> Artifact:
    """A graph of two shards of 2,000 rows on a node that has no copies yet."""
    artifact = Artifact(s3.uri("graph-rows"), NodeCache(str(tmp_path), 1 << 30))
    output = Output(artifact, "graph", "f", {}, {})
    output.begin()
    shards = [
        write_rows(artifact, f"part-{i}.arrow", 4000, {name: one[2000 * i : 2000 * (i + 1)] for name, one in EDGES})
        for i in range(2)
    ]
    output.commit(shards, {}, {})
    return artifact


def test_a_block_of_a_graph_fetches_its_own_bytes(s3: S3Server, graph: Artifact) -> None:
    opened, since = MappedGraph(graph), Since(s3)
    assert (opened.n_rows, opened.n_neighbors) == (4000, 8)
    assert not since.requests
    for found, (_, wanted) in zip(opened.block(1000, 3000), EDGES, strict=True):
        np.testing.assert_array_equal(found, wanted[1000:3000])
    assert since.n_bytes == 2000 * 8 * (4 + 2)


def test_a_graph_that_is_read_again_is_fetched_once(s3: S3Server, graph: Artifact) -> None:
    since = Since(s3)
    for opened in (MappedGraph(graph, reread=True), MappedGraph(graph, graph.manifest().shards, reread=True)):
        for _ in range(2):
            assert sum(len(neighbors) for _, neighbors, _ in edge_blocks(opened, 500)) == 4000
            opened = pickle.loads(pickle.dumps(opened))
    kept = [request.key for request in since.requests if request.method == "GET" and request.key.endswith(".arrow")]
    assert sorted(kept) == ["graph-rows/part-0.arrow", "graph-rows/part-1.arrow"]

from __future__ import annotations

import pickle
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from pyarrow import fs

from distspectral.datasets import write_vectors
from distspectral.errors import MissingArtifactError
from distspectral.stages.pack import PackConfig, pack
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.artifact.output import Output
from distspectral.storage.artifact.receipts import write_shard
from distspectral.storage.rows.block import Block
from distspectral.storage.rows.moments import Moments
from distspectral.storage.rows.packed import PackedWriter
from distspectral.storage.rows.shard_rows import layout
from distspectral.storage.rows.vectors import ArrayVectors, FleetingVectors, MappedVectors, Vectors
from distspectral.storage.source.dataset import Source, SourceConfig
from tests.datasets import UNEVEN, blobs, packed, vectors_output

VECTORS, LABELS = blobs(100, 6)
RNG = np.random.default_rng(0)


def in_batches(folder: Path, batch_rows: int) -> Artifact:
    """Return an artifact of the vectors in uneven shards, whose record batches hold so many rows."""
    output = Output(Artifact(str(folder)), "pack", "fingerprint", {}, {})
    output.begin()
    shards, first_row = [], 0
    for part in np.split(VECTORS, np.cumsum(UNEVEN)[:-1]):
        block = Block(part, None, None, 0)

        details: dict[str, Any] = {}

        def write(
            stream: IO[bytes], block: Block = block, first_row: int = first_row, details: dict[str, Any] = details
        ) -> int:
            batch_bytes = batch_rows * 6 * 4
            with PackedWriter(stream, block.n_rows, 6, "float32", "int64", None, batch_bytes) as writer:
                writer.append(block, block.global_ids(first_row))
            details.update(layout(stream, ["vector"]))
            return block.n_rows

        shards.append(write_shard(output.artifact, f"part-{first_row}.arrow", write, details))
        first_row += block.n_rows
    moments = Moments.of(VECTORS)
    facts = {"mean": moments.mean.tolist(), "variance": moments.variance}
    output.commit(shards, {"dim": 6, "dtype": "float32", "has_labels": False, "id_type": "int64", **facts}, {})
    return output.artifact


@pytest.fixture(params=["array", "one block", "uneven shards", "many blocks", "float16", "fleeting"])
def vectors(request: pytest.FixtureRequest, tmp_path: Path) -> Vectors:
    if request.param == "array":
        return ArrayVectors(VECTORS)
    if request.param == "many blocks":
        return MappedVectors(in_batches(tmp_path, 7))
    sizes = (100,) if request.param == "one block" else UNEVEN
    config = PackConfig(dtype="float16" if request.param == "float16" else "float32")
    artifact = packed(tmp_path, VECTORS.astype(config.dtype), sizes=sizes, config=config)
    if request.param == "fleeting":
        return FleetingVectors(artifact, mapped_bytes=30 * 6 * 4)
    return MappedVectors(artifact)


def expected(vectors: Vectors) -> NDArray[np.float32]:
    is_half = isinstance(vectors, MappedVectors) and vectors.dtype == np.float16
    return VECTORS.astype(np.float16).astype(np.float32) if is_half else VECTORS


@pytest.mark.parametrize(
    "rows",
    [
        np.arange(100),
        RNG.permutation(100),
        RNG.integers(0, 100, 1000),
        np.array([99]),
        np.array([0, 0, 99, 0, 41, 40, 1]),
        np.array([], dtype=np.int64),
    ],
    ids=["all", "permuted", "repeated", "last", "edges", "none"],
)
def test_gather_equals_fancy_indexing(vectors: Vectors, rows: NDArray[np.int64]) -> None:
    result = vectors.gather(rows)
    np.testing.assert_array_equal(result, expected(vectors)[rows])
    assert result.dtype == np.float32
    assert result.flags.c_contiguous
    assert result.flags.writeable


@pytest.mark.parametrize(
    ("start", "stop"), [(0, 100), (0, 1), (1, 41), (40, 49), (0, 0), (100, 100), (99, 100), (41, 41)]
)
def test_block_equals_slicing(vectors: Vectors, start: int, stop: int) -> None:
    result = vectors.block(start, stop)
    np.testing.assert_array_equal(result, expected(vectors)[start:stop])
    assert result.shape == (stop - start, 6)
    assert result.dtype == np.float32


def test_rows_that_do_not_exist_are_refused(vectors: Vectors) -> None:
    for row in (-1, 100):
        with pytest.raises(IndexError, match="rows 0 to 99"):
            vectors.gather(np.array([3, row]))
    for start, stop in ((-1, 5), (5, 4), (90, 101)):
        with pytest.raises(IndexError, match="there are 100"):
            vectors.block(start, stop)


def test_mean_and_scale_are_those_of_the_rows(vectors: Vectors) -> None:
    rows = expected(vectors).astype(np.float64)
    assert (vectors.n_rows, vectors.dim) == (100, 6)
    np.testing.assert_allclose(vectors.mean, rows.mean(axis=0), rtol=1e-12)
    assert vectors.scale == pytest.approx(np.sqrt(rows.var(axis=0).mean()), rel=1e-12)


def test_float32_blocks_are_views_of_the_file(tmp_path: Path) -> None:
    vectors = MappedVectors(packed(tmp_path, VECTORS))
    assert np.shares_memory(vectors.block(10, 20), vectors.block(0, 100))


def test_array_vectors_keep_a_float32_array_without_copying() -> None:
    assert np.shares_memory(ArrayVectors(VECTORS).block(0, 100), VECTORS)


def test_ids_and_labels_are_columns(tmp_path: Path) -> None:
    ids = np.array([f"row {row}" for row in range(100)])
    vectors = MappedVectors(packed(tmp_path, VECTORS, labels=LABELS, ids=ids, sizes=UNEVEN))
    assert vectors.ids().to_pylist() == ids.tolist()
    assert vectors.labels().to_pylist() == LABELS.tolist()


def test_without_columns_ids_are_row_numbers_and_labels_none(tmp_path: Path) -> None:
    vectors = MappedVectors(packed(tmp_path, VECTORS, sizes=UNEVEN))
    assert vectors.ids().type == pa.int64()
    assert vectors.ids().to_pylist() == list(range(100))
    assert vectors.labels() is None


def test_local_shards_are_mapped_not_copied(tmp_path: Path) -> None:
    artifact = packed(tmp_path, VECTORS, sizes=UNEVEN)
    before = pa.total_allocated_bytes()
    vectors = MappedVectors(artifact)
    assert pa.total_allocated_bytes() - before < VECTORS.nbytes / 2
    assert not vectors.block(0, 1).flags.writeable


def test_mapped_vectors_survive_pickling(tmp_path: Path) -> None:
    vectors = MappedVectors(packed(tmp_path, VECTORS, sizes=UNEVEN))
    content = pickle.dumps(vectors)
    assert len(content) < 1000
    np.testing.assert_array_equal(pickle.loads(content).gather(np.arange(100)), VECTORS)


def test_remote_artifacts_are_packed_and_read(tmp_path: Path) -> None:
    packed(tmp_path, VECTORS, sizes=UNEVEN)
    source = Source.open(SourceConfig(path=str(tmp_path / "source"), id_column="id"))
    fs.FileSystem.from_uri("fsspec+memory:///")[0].create_dir(f"/{tmp_path.name}")
    output = vectors_output(f"fsspec+memory:///{tmp_path.name}/vectors", source)
    pack(source, output, PackConfig())
    vectors = MappedVectors(output.artifact)
    np.testing.assert_array_equal(vectors.gather(np.arange(100)[::-1]), VECTORS[::-1])
    assert vectors.ids().to_pylist() == list(range(100))


def test_unfinished_artifact_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingArtifactError, match="holds no finished artifact"):
        MappedVectors(Artifact(str(tmp_path)))


def test_one_shard_is_numbered_from_its_own_first_row_and_may_be_empty(tmp_path: Path) -> None:
    rows = VECTORS.copy()
    rows[50:60] = np.nan
    write_vectors(str(tmp_path / "source"), rows, labels=LABELS, sizes=(50, 10, 40))
    config = SourceConfig(path=str(tmp_path / "source"), label_column="label", on_bad_rows="quarantine")
    source = Source.open(config)
    output = vectors_output(tmp_path / "vectors", source)
    pack(source, output, PackConfig())
    artifact = output.artifact
    names = [shard.name for shard in artifact.manifest().shards]
    last = pickle.loads(pickle.dumps(MappedVectors(artifact, only=names[2])))
    np.testing.assert_array_equal(last.block(0, 40), VECTORS[60:])
    assert last.ids().to_pylist() == list(range(60, 100))
    empty = MappedVectors(artifact, only=names[1])
    assert empty.block(0, 0).shape == empty.gather(np.array([], np.int64)).shape == (0, 6)
    labels = empty.labels()
    assert labels is not None
    assert (labels.type, empty.ids().type) == (pa.int64(), pa.int64())

from __future__ import annotations

import io
import os
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from pyarrow import fs
from pydantic import ValidationError

from distspectral.errors import (
    CorruptShardError,
    EmptyShardError,
    NonFiniteRowError,
    ShardWidthError,
    SourceError,
    UnknownColumnError,
    UnsupportedTypeError,
)
from distspectral.storage.source.dataset import Source, SourceConfig
from distspectral.storage.source.formats import parquet
from tests.datasets import as_lists, npy_claiming, read_all, write_raw, write_table

MATRIX = (np.arange(50 * 6).reshape(50, 6) % 97).astype(np.float64)
DTYPES = ["float16", "float32", "float64", "uint8", "int8", "int16", "int32", "int64", "uint16", "uint32", "uint64"]


def open_source(path: Path | str, **config: Any) -> Source:
    return Source.open(SourceConfig(path=str(path), **config))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["fixed", "list", "large_list"])
@pytest.mark.parametrize("name", ["a.parquet", "a.arrow", "a.ipc"])
def test_tables_round_trip(tmp_path: Path, name: str, kind: str, dtype: str) -> None:
    ids, labels = [f"row {row}" for row in range(50)], np.arange(50, dtype=np.int16)
    write_table(tmp_path / name, {"vector": as_lists(MATRIX.astype(dtype), kind), "name": ids, "class": labels})
    source = open_source(tmp_path, id_column="name", label_column="class", scale=0.5)
    assert (source.n_rows, source.dim, source.id_type, source.label_type) == (50, 6, "string", "int64")
    blocks = list(source.read_blocks(source.shards[0], 7))
    assert max(block.n_rows for block in blocks) == 7
    assert [block.first_row for block in blocks] == np.cumsum([0, *(block.n_rows for block in blocks)])[:-1].tolist()
    np.testing.assert_array_equal(np.concatenate([block.vectors for block in blocks]), (MATRIX / 2).astype(np.float32))
    assert all(block.vectors.flags.writeable and block.vectors.dtype == np.float32 for block in blocks)
    assert [one for block in blocks for one in block.ids.to_pylist()] == ids
    assert [one for block in blocks for one in block.labels.to_pylist()] == labels.tolist()


@pytest.mark.parametrize("dtype", [*DTYPES, ">f4"])
def test_npy_round_trips(tmp_path: Path, dtype: str) -> None:
    write_raw(tmp_path / "a.npy", MATRIX.astype(dtype))
    np.testing.assert_array_equal(read_all(open_source(tmp_path), 7), MATRIX.astype(np.float32))


def test_fbin_round_trips(tmp_path: Path) -> None:
    write_raw(tmp_path / "a.fbin", MATRIX)
    source = open_source(tmp_path / "a.fbin")
    np.testing.assert_array_equal(read_all(source, 7), MATRIX.astype(np.float32))
    assert next(source.read_blocks(source.shards[0])).ids is None


def test_explicit_format_reads_files_of_any_name(tmp_path: Path) -> None:
    write_raw(tmp_path / "a.fbin", MATRIX)
    (tmp_path / "a.fbin").rename(tmp_path / "base.1B")
    assert open_source(tmp_path, format="fbin").n_rows == 50


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow", "a.ipc", "a.npy", "a.fbin"])
def test_remote_file_systems_read_the_same(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    write = (
        write_raw
        if path.suffix in (".npy", ".fbin")
        else lambda to, m: write_table(to, {"vector": as_lists(m, "list")})
    )
    write(path, MATRIX.astype(np.float32))
    memory, root = fs.FileSystem.from_uri(f"fsspec+memory:///{tmp_path.name}-{name}")
    memory.create_dir(root)
    with memory.open_output_stream(f"{root}/{name}") as stream:
        stream.write(path.read_bytes())
    for uri in (f"fsspec+memory://{root}", f"fsspec+memory://{root}/*"):
        source = open_source(uri)
        assert source.shards[0].uri == f"fsspec+memory://{root}/{name}"
        np.testing.assert_array_equal(read_all(source, 7), MATRIX.astype(np.float32))


def test_a_store_that_knows_no_times_is_asked_what_else_has_changed() -> None:
    memory, root = fs.FileSystem.from_uri("fsspec+memory:///without-times")
    memory.create_dir(root)

    def put(values: NDArray[np.float32]) -> tuple[int | None, str]:
        content = io.BytesIO()
        np.save(content, values)
        with memory.open_output_stream(f"{root}/a.npy") as stream:
            stream.write(content.getvalue())
        source = open_source(f"fsspec+memory://{root}")
        return source.shards[0].file.mtime_ns, source.fingerprint()

    first, again = put(MATRIX.astype(np.float32)), put(1 + MATRIX.astype(np.float32))
    assert first[0] is None, "as of hf://"
    assert first[1] != again[1]
    assert open_source(f"fsspec+memory://{root}").fingerprint() == again[1]


@pytest.mark.parametrize("kind", ["fixed", "list", "large_list"])
def test_sliced_arrays_keep_their_rows(tmp_path: Path, kind: str) -> None:
    column = as_lists(MATRIX.astype(np.float32), kind).slice(5, 30)
    batch = pa.record_batch({"vector": column})
    with pa.ipc.new_file(tmp_path / "a.arrow", batch.schema) as writer:
        writer.write_batch(batch)
    np.testing.assert_array_equal(read_all(open_source(tmp_path), 4), MATRIX[5:35])


def test_compressed_record_batches_are_read(tmp_path: Path) -> None:
    table = pa.table({"other": ["x"] * 50, "vector": as_lists(MATRIX.astype(np.float32)), "id": np.arange(50)})
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_file(tmp_path / "a.feather", table.schema, options=options) as writer:
        writer.write_table(table)
    np.testing.assert_array_equal(read_all(open_source(tmp_path, id_column="id")), MATRIX)


def test_dictionary_encoded_ids_and_boolean_labels_are_read(tmp_path: Path) -> None:
    ids = pa.array(["a", "b", "c"]).dictionary_encode()
    columns = {"vector": as_lists(MATRIX[:3]), "id": ids, "label": [True, False, True]}
    write_table(tmp_path / "a.arrow", columns)
    source = open_source(tmp_path, id_column="id", label_column="label")
    (block,) = source.read_blocks(source.shards[0])
    assert block.ids.to_pylist() == ["a", "b", "c"]
    assert block.labels.to_pylist() == [1, 0, 1]


def test_shards_know_their_first_row_and_default_ids(tmp_path: Path) -> None:
    for index, size in enumerate((3, 1, 6)):
        write_raw(tmp_path / f"{index}.npy", MATRIX[:size])
    source = open_source(tmp_path)
    assert [(shard.n_rows, shard.first_row) for shard in source.shards] == [(3, 0), (1, 3), (6, 4)]
    ids = [block.global_ids(shard.first_row) for shard in source.shards for block in source.read_blocks(shard, 2)]
    assert pa.concat_arrays(ids).to_pylist() == list(range(10))


def test_source_and_reader_survive_pickling(tmp_path: Path) -> None:
    write_table(tmp_path / "a.parquet", {"vector": as_lists(MATRIX), "id": np.arange(50)})
    source = open_source(tmp_path, id_column="id")
    np.testing.assert_array_equal(read_all(pickle.loads(pickle.dumps(source))), MATRIX)
    reader, shard = pickle.loads(pickle.dumps((source.reader, source.shards[0])))
    assert [one for block in reader.read_blocks(shard) for one in block.ids.to_pylist()] == list(range(50))


def test_fingerprint_follows_content_and_config_but_not_the_folder(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    write_raw(tmp_path / "one" / "a.npy", MATRIX)
    before = open_source(tmp_path / "one").fingerprint()
    (tmp_path / "one").rename(tmp_path / "two")
    assert open_source(tmp_path / "two").fingerprint() == before
    assert open_source(tmp_path / "two", scale=2.0).fingerprint() != before
    os.utime(tmp_path / "two" / "a.npy", ns=(1, 1))
    assert open_source(tmp_path / "two").fingerprint() != before


# ---- what is refused when the source is opened --------------------------------------------------------------------


@pytest.mark.parametrize(
    "config", [{"scale": 0.0}, {"scale": float("inf")}, {"path": ""}, {"path": []}, {"colum": "x"}]
)
def test_config_refuses(config: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        SourceConfig(**{"path": "x", **config})


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow", "a.ipc", "a.npy", "a.fbin"])
def test_empty_shard_is_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    empty = np.empty((0, 6), np.float32)
    write_raw(path, empty) if path.suffix in (".npy", ".fbin") else write_table(path, {"vector": as_lists(empty)})
    with pytest.raises(EmptyShardError, match=f"{name}: holds no rows"):
        open_source(tmp_path)


@pytest.mark.parametrize("name", ["a.parquet", "m.arrow", "z.npy", "z.fbin"])
def test_parts_of_no_rows_are_passed_over(tmp_path: Path, name: str) -> None:
    write_raw(tmp_path / "b.npy", MATRIX[:20])
    write_raw(tmp_path / "c.npy", MATRIX[20:])
    alone = open_source(tmp_path)
    path = tmp_path / name
    if path.suffix in (".npy", ".fbin"):
        write_raw(path, np.empty((0, 7), np.float32))
    else:
        write_table(path, {"vector": pa.array([], pa.null())})
    source = open_source(tmp_path)
    np.testing.assert_array_equal(read_all(source), MATRIX)
    assert (source.fingerprint(), len(source.shards)) == (alone.fingerprint(), 2)


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
@pytest.mark.parametrize(
    ("column", "settings"),
    [("vector", {}), ("id", {"id_column": "id"}), ("label", {"label_column": "label"})],
)
def test_a_column_that_occurs_twice_is_named(tmp_path: Path, name: str, column: str, settings: dict[str, str]) -> None:
    arrays = {"vector": as_lists(MATRIX), "id": pa.array(range(50)), "label": pa.array(range(50))}
    names = [*arrays, column]
    table = pa.Table.from_arrays([arrays[one] for one in names], names)
    if name == "a.parquet":
        pq.write_table(table, tmp_path / name)
    else:
        with pa.ipc.new_file(tmp_path / name, table.schema) as writer:
            writer.write_table(table)
    with pytest.raises(UnknownColumnError, match=f"{name}: has 2 columns '{column}'; rename all but one, or set data"):
        open_source(tmp_path, **settings)


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
@pytest.mark.parametrize(
    ("bad", "kind", "message"),
    [
        ([1.0] * 4, ShardWidthError, "row 0 of column 'vector' has width 4, expected 6"),
        (None, SourceError, "row 0 of column 'vector' is null"),
        ([], ShardWidthError, "row 0 of column 'vector' has width 0, expected 6"),
        ([float("nan")] * 6, NonFiniteRowError, "row 0 of column 'vector', feature 0: found nan"),
    ],
)
@pytest.mark.parametrize("n_rows", [2, 3, 50])
def test_a_bad_first_row_is_the_one_that_is_blamed(
    tmp_path: Path, name: str, bad: Any, kind: type[Exception], message: str, n_rows: int
) -> None:
    rows = [*MATRIX.tolist()[:n_rows], bad][::-1] + MATRIX.tolist()[:1]
    write_table(tmp_path / name, {"vector": pa.array(rows, pa.list_(pa.float32()))})
    write_raw(tmp_path / "b.npy", MATRIX)
    with pytest.raises(kind, match=f"{name}: {message}"):
        read_all(open_source(tmp_path))


def test_the_shard_of_the_odd_width_is_blamed_wherever_it_stands(tmp_path: Path) -> None:
    write_raw(tmp_path / "a.npy", MATRIX[:2, :5])
    write_raw(tmp_path / "b.npy", MATRIX)
    with pytest.raises(ShardWidthError, match=r"a\.npy: vectors have width 5, but 6 in .*b\.npy"):
        open_source(tmp_path)


HEADERS = {
    "a truth": "(True, 6)",
    "negative": "(-1, 6)",
    "a fraction": "(1.5, 6)",
    "huge": "(9223372036854775807, 6)",
    "beyond 64 bits": "(1000000000000000000000, 6)",
    "flat": "(300,)",
    "nothing": "()",
    "no tuple": "300",
    "text": "('1', 6)",
}


@pytest.mark.parametrize("shape", HEADERS.values(), ids=HEADERS)
def test_a_hostile_npy_header_is_refused_by_name(tmp_path: Path, shape: str) -> None:
    (tmp_path / "a.npy").write_bytes(npy_claiming(shape, MATRIX.astype("<f4")))
    with pytest.raises(SourceError, match=r"a\.npy: "):
        open_source(tmp_path)


@pytest.mark.parametrize(
    "dtype", ["'|O'", "[('x', '<f4'), ('y', '<f4')]", "'<U4'", "'<c8'", "'|V4'", "'<f4', 7", "'<i8'"]
)
def test_an_npy_of_another_type_is_refused_by_name(tmp_path: Path, dtype: str) -> None:
    (tmp_path / "a.npy").write_bytes(npy_claiming("(50, 6)", MATRIX.astype("<f4"), dtype))
    with pytest.raises(SourceError, match=r"a\.npy: "):
        open_source(tmp_path)


def test_empty_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").touch()
    with pytest.raises(EmptyShardError, match=r"a\.parquet: is an empty file"):
        open_source(tmp_path)


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow", "a.ipc", "a.npy", "a.fbin"])
def test_truncated_shard_is_corrupt(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    write_raw(path, MATRIX) if path.suffix in (".npy", ".fbin") else write_table(path, {"vector": as_lists(MATRIX)})
    path.write_bytes(path.read_bytes()[:-70])
    with pytest.raises(CorruptShardError, match=name):
        read_all(open_source(tmp_path))


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow", "a.npy", "a.fbin"])
def test_garbage_is_corrupt_when_opened(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"this is not a shard at all")
    with pytest.raises(CorruptShardError, match=name):
        open_source(tmp_path)


def test_damaged_parquet_page_is_corrupt_when_read(tmp_path: Path) -> None:
    pq.write_table(pa.table({"vector": as_lists(np.random.default_rng(0).random((500, 6)))}), tmp_path / "a.parquet")
    content = bytearray((tmp_path / "a.parquet").read_bytes())
    content[4:400] = b"\xff" * 396
    (tmp_path / "a.parquet").write_bytes(content)
    source = open_source(tmp_path)
    with pytest.raises(CorruptShardError, match=r"a\.parquet: cannot be read as parquet"):
        read_all(source)


def test_fbin_header_must_agree_with_the_size(tmp_path: Path) -> None:
    (tmp_path / "a.fbin").write_bytes(struct.pack("<II", 51, 6) + MATRIX.astype("<f4").tobytes())
    with pytest.raises(CorruptShardError, match=r"1208 bytes long.*51 rows of width 6.*1232"):
        open_source(tmp_path)


def test_shards_of_two_widths_are_both_named(tmp_path: Path) -> None:
    write_raw(tmp_path / "a.npy", MATRIX)
    write_table(tmp_path / "b.parquet", {"vector": as_lists(MATRIX[:, :5], "list")})
    with pytest.raises(ShardWidthError, match=r"b\.parquet: vectors have width 5, but 6 in .*a\.npy"):
        open_source(tmp_path)


def test_unknown_column_names_the_nearest(tmp_path: Path) -> None:
    write_table(tmp_path / "a.parquet", {"vectors": as_lists(MATRIX), "key": np.arange(50)})
    with pytest.raises(
        UnknownColumnError, match=r"'vector'; did you mean 'vectors'\? It has vectors, key; set data.column"
    ):
        open_source(tmp_path)
    with pytest.raises(UnknownColumnError, match=r"set data.id_column"):
        open_source(tmp_path, column="vectors", id_column="id")


def test_raw_formats_have_no_columns(tmp_path: Path) -> None:
    write_raw(tmp_path / "a.npy", MATRIX)
    with pytest.raises(UnknownColumnError, match=r"a\.npy: has no column 'y'.*remove data\.label_column"):
        open_source(tmp_path, label_column="y")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"vector": np.arange(50)}, "column 'vector' is int64"),
        ({"vector": pa.array([[True]] * 50)}, "column 'vector' is list"),
        (
            {"vector": ["x"] * 50, "emb": as_lists(MATRIX), "w": MATRIX[:, 0]},
            "column 'vector' is .*data.column to 'emb'",
        ),
        ({"vector": as_lists(MATRIX), "id": MATRIX[:, 0]}, "column 'id' is double"),
    ],
)
def test_unsupported_column_type_is_named(tmp_path: Path, columns: dict[str, Any], message: str) -> None:
    write_table(tmp_path / "a.parquet", columns)
    with pytest.raises(UnsupportedTypeError, match=f"a.parquet: {message}"):
        open_source(tmp_path, id_column="id" if "id" in columns else None)


@pytest.mark.parametrize("array", [MATRIX[0], MATRIX > 3, np.asfortranarray(MATRIX), MATRIX.astype("U3")])
def test_npy_of_another_kind_is_refused(tmp_path: Path, array: np.ndarray[Any, Any]) -> None:
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(UnsupportedTypeError, match=r"a\.npy"):
        open_source(tmp_path)


def test_id_types_must_agree_between_shards(tmp_path: Path) -> None:
    write_table(tmp_path / "a.parquet", {"vector": as_lists(MATRIX), "id": np.arange(50)})
    write_table(tmp_path / "b.parquet", {"vector": as_lists(MATRIX), "id": [str(row) for row in range(50)]})
    with pytest.raises(UnsupportedTypeError, match=r"b\.parquet: ids are string, but int64 in .*a\.parquet"):
        open_source(tmp_path, id_column="id")


# ---- what is refused when rows are read ---------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["a.parquet", "a.arrow", "a.npy", "a.fbin"])
def test_non_finite_row_is_named(tmp_path: Path, name: str, value: float) -> None:
    bad = MATRIX.copy()
    bad[37, 4] = value
    path = tmp_path / name
    write_raw(path, bad) if path.suffix in (".npy", ".fbin") else write_table(path, {"vector": as_lists(bad)})
    source = open_source(tmp_path)
    with pytest.raises(NonFiniteRowError, match=rf"{name}: row 37 of column 'vector', feature 4: found {value}"):
        read_all(source, 10)


def test_value_beyond_float32_is_named(tmp_path: Path) -> None:
    bad = MATRIX.copy()
    bad[3, 0] = 1e300
    write_raw(tmp_path / "a.npy", bad)
    with pytest.raises(NonFiniteRowError, match=r"row 3 .*1e\+300 is beyond float32"):
        read_all(open_source(tmp_path))


@pytest.mark.parametrize("at", [0, 20])
@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
@pytest.mark.parametrize("width", [4, 12])
def test_ragged_list_row_is_named(tmp_path: Path, name: str, width: int, at: int) -> None:
    rows = MATRIX.tolist()
    rows[at + 1] = [1.0] * width
    write_table(tmp_path / name, {"vector": pa.array(rows, pa.list_(pa.float32()))})
    with pytest.raises(
        ShardWidthError, match=rf"{name}: row {at + 1} of column 'vector' has width {width}, expected 6"
    ):
        read_all(open_source(tmp_path), 10)


def test_ragged_list_that_the_footer_cannot_betray_is_found_when_read(tmp_path: Path) -> None:
    rows = MATRIX.tolist()
    rows[30], rows[31] = [1.0] * 5, [1.0] * 7
    write_table(tmp_path / "a.parquet", {"vector": pa.array(rows, pa.list_(pa.float32()))})
    with pytest.raises(ShardWidthError, match=r"row 30 .* width 5, expected 6"):
        read_all(open_source(tmp_path))


@pytest.mark.parametrize("kind", [pa.list_(pa.float32()), pa.list_(pa.float32(), 6)], ids=["list", "fixed"])
@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
def test_null_vector_is_named(tmp_path: Path, name: str, kind: pa.DataType) -> None:
    rows: list[Any] = MATRIX.tolist()
    rows[33] = None
    write_table(tmp_path / name, {"vector": pa.array(rows, kind)})
    with pytest.raises(SourceError, match=rf"{name}: row 33 of column 'vector' is null; .*on_bad_rows: quarantine"):
        read_all(open_source(tmp_path))


@pytest.mark.parametrize("kind", [pa.list_(pa.float32()), pa.list_(pa.float32(), 6)], ids=["list", "fixed"])
def test_null_value_is_named(tmp_path: Path, kind: pa.DataType) -> None:
    rows: list[Any] = MATRIX.tolist()
    rows[33][2] = None
    write_table(tmp_path / "a.parquet", {"vector": pa.array(rows, kind)})
    with pytest.raises(SourceError, match=r"row 33 of column 'vector' is null at feature 2; .*on_bad_rows: quarantine"):
        read_all(open_source(tmp_path))


def test_null_id_is_named(tmp_path: Path) -> None:
    write_table(tmp_path / "a.parquet", {"vector": as_lists(MATRIX[:3]), "id": [1, None, 3]})
    with pytest.raises(SourceError, match=r"row 1 of column 'id' is null"):
        read_all(open_source(tmp_path, id_column="id"))


def test_id_beyond_int64_is_refused(tmp_path: Path) -> None:
    ids = np.array([1, 2, 2**64 - 1], dtype=np.uint64)
    write_table(tmp_path / "a.parquet", {"vector": as_lists(MATRIX[:3]), "id": ids})
    with pytest.raises(UnsupportedTypeError, match=r"column 'id' does not fit int64 between rows 0 and 2"):
        read_all(open_source(tmp_path, id_column="id"))


def test_shard_that_grew_after_opening_is_refused(tmp_path: Path) -> None:
    write_table(tmp_path / "a.parquet", {"vector": as_lists(MATRIX)})
    source = open_source(tmp_path)
    write_table(tmp_path / "a.parquet", {"vector": as_lists(np.vstack([MATRIX, MATRIX]))})
    with pytest.raises(CorruptShardError, match=r"a\.parquet: is .* bytes long, but .* when it was listed"):
        read_all(source)


# ---- what is read without copying, and large row groups ------------------------------------------------------------


def test_float32_vectors_are_views_where_no_copy_is_asked_for(tmp_path: Path) -> None:
    write_table(tmp_path / "a.parquet", {"vector": as_lists(MATRIX.astype(np.float32))})
    source = open_source(tmp_path)
    views = [block.vectors for block in source.reader.read_blocks(source.shards[0], copy=False)]
    assert not any(view.flags.writeable or view.flags.owndata for view in views)
    np.testing.assert_array_equal(np.concatenate(views), MATRIX)
    scaled = open_source(tmp_path, scale=0.5)
    copies = [block.vectors for block in scaled.reader.read_blocks(scaled.shards[0], copy=False)]
    np.testing.assert_array_equal(np.concatenate(copies), MATRIX / 2)


def test_bad_values_are_found_in_views_too(tmp_path: Path) -> None:
    spoilt = MATRIX.astype(np.float32)
    spoilt[7, 2] = np.inf
    write_table(tmp_path / "a.parquet", {"vector": as_lists(spoilt)})
    source = open_source(tmp_path)
    with pytest.raises(NonFiniteRowError, match="row 7"):
        list(source.reader.read_blocks(source.shards[0], copy=False))


@pytest.mark.parametrize("is_large", [True, False])
@pytest.mark.parametrize("place", ["{folder}", "file://{folder}"])
def test_large_row_groups_are_read_through_a_buffer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_large: bool, place: str
) -> None:
    write_table(tmp_path / "a.parquet", {"vector": as_lists(MATRIX), "id": np.arange(50)})
    opened: list[int] = []
    parquet_file = parquet.pq.ParquetFile

    def noted(*arguments: Any, **keywords: Any) -> Any:
        opened.append(keywords["buffer_size"])
        return parquet_file(*arguments, **keywords)

    monkeypatch.setattr(parquet.pq, "ParquetFile", noted)
    source = open_source(place.format(folder=tmp_path), id_column="id")
    batches = parquet.batches(source.shards[0].file, source.config.columns, 7, group_bytes=10 if is_large else 1 << 30)
    table = pa.Table.from_batches(batches)
    np.testing.assert_array_equal(np.stack(table["vector"].to_numpy()), MATRIX)
    assert table["id"].to_pylist() == list(range(50))
    assert (opened[-1] > 0) == is_large


def test_a_shards_fingerprint_is_its_own_and_counts_rows_before_it_only_where_these_are_ids(tmp_path: Path) -> None:
    for name in ("b.parquet", "c.parquet"):
        write_table(tmp_path / name, {"vector": as_lists(MATRIX), "id": np.arange(50)})
    named, numbered = (open_source(tmp_path, id_column=column).shard_fingerprints() for column in ("id", None))
    assert len({*named, *numbered}) == 4
    write_table(tmp_path / "a.parquet", {"vector": as_lists(MATRIX), "id": np.arange(50)})
    assert open_source(tmp_path, id_column="id").shard_fingerprints()[1:] == named
    assert not set(open_source(tmp_path).shard_fingerprints()[1:]) & set(numbered)
    assert not set(open_source(tmp_path, id_column="id", scale=2.0).shard_fingerprints()) & set(named)

"""Types of columns that people's tables have beside plain lists, integers and strings."""

from __future__ import annotations

import decimal
import gzip
import importlib
import io
import json
import re
import subprocess
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest
import scipy.io

from distspectral.errors import NoShardsError, SourceError, UnknownColumnError, UnsupportedTypeError
from distspectral.storage.rows.block import Block
from distspectral.storage.source.dataset import Source, SourceConfig
from distspectral.storage.source.framing import framed
from tests.datasets import as_lists

MATRIX = np.arange(24, dtype=np.float32).reshape(6, 4)


def write(path: Path, columns: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table(columns)
    if path.suffix == ".parquet":
        pq.write_table(table, path, row_group_size=4)
        return
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table, 4)


def read(folder: Path, **config: Any) -> list[Block]:
    source = framed(Source.open(SourceConfig(path=str(folder), **config))).carrying()
    return [block for shard in source.shards for block in source.read_blocks(shard, 3)]


def vectors(blocks: list[Block]) -> np.ndarray[Any, Any]:
    return np.concatenate([block.vectors for block in blocks])


def tensors(shape: tuple[int, ...]) -> pa.Array:
    return pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(pa.float32(), shape), as_lists(MATRIX))


VECTORS = {
    "tensor": tensors((4,)),
    "tensor of two axes": tensors((2, 2)),
    "list_view": pa.array(MATRIX.tolist(), pa.list_view(pa.float32())),
    "large_list_view": pa.array(MATRIX.tolist(), pa.large_list_view(pa.float32())),
}


@pytest.mark.parametrize(
    ("form", "ends"),
    [(form, ends) for form in VECTORS for ends in ("arrow", "parquet") if ends == "arrow" or "view" not in form],
)
def test_vectors_are_read_from_tensors_and_views(tmp_path: Path, form: str, ends: str) -> None:
    write(tmp_path / f"a.{ends}", {"vector": VECTORS[form]})
    np.testing.assert_array_equal(vectors(read(tmp_path)), MATRIX)


@pytest.mark.parametrize("form", VECTORS)
def test_a_bad_row_among_tensors_and_views_is_set_aside(tmp_path: Path, form: str) -> None:
    column = pa.concat_arrays([VECTORS[form].slice(0, 2), pa.nulls(1, VECTORS[form].type), VECTORS[form].slice(2)])
    write(tmp_path / "a.arrow", {"vector": column})
    np.testing.assert_array_equal(vectors(read(tmp_path, on_bad_rows="quarantine")), MATRIX)


UUIDS = [uuid.UUID(int=number) for number in range(6)]
KEYS = [f"k{number}" for number in range(6)]
IDS = {
    "string_view": (pa.array(KEYS, pa.string_view()), KEYS),
    "binary": (pa.array([key.encode() for key in KEYS]), KEYS),
    "uuid": (pa.array([one.bytes for one in UUIDS], pa.uuid()), [str(one) for one in UUIDS]),
    "digest": (pa.array([bytes([number, 255]) for number in range(6)], pa.binary(2)), [f"0{n}ff" for n in range(6)]),
}


@pytest.mark.parametrize("ends", ["arrow", "parquet"])
@pytest.mark.parametrize("form", IDS)
def test_ids_are_read_as_text(tmp_path: Path, form: str, ends: str) -> None:
    column, expected = IDS[form]
    write(tmp_path / f"a.{ends}", {"vector": as_lists(MATRIX), "key": column})
    assert [one for block in read(tmp_path, id_column="key") for one in block.ids.to_pylist()] == expected


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", {"vector": as_lists(MATRIX), "key": [b"\xff"] * 6})
    with pytest.raises(UnsupportedTypeError, match=r"column 'key' does not fit string .*UTF8"):
        read(tmp_path, id_column="key")


def test_labels_may_be_whole_numbers_in_floating_point(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", {"vector": as_lists(MATRIX), "label": np.arange(6) % 2 * 1.0})
    assert [one for block in read(tmp_path, label_column="label") for one in block.labels.to_pylist()] == [0, 1] * 3
    write(tmp_path / "a.parquet", {"vector": as_lists(MATRIX), "label": np.arange(6) / 2})
    with pytest.raises(UnsupportedTypeError, match=r"column 'label' does not fit int64 .*0\.5\d* was truncated"):
        read(tmp_path, label_column="label")


@pytest.mark.parametrize(
    "column", [[0, None, 1, 1, None, 0], [0.0, None, 1.0, 1.0, float("nan"), 0.0], ["a", None, "b", "b", None, "a"]]
)
def test_rows_may_lack_their_labels(tmp_path: Path, column: list[Any]) -> None:
    write(tmp_path / "a.parquet", {"vector": as_lists(MATRIX), "label": pa.array(column, from_pandas=False)})
    labels = [one for block in read(tmp_path, label_column="label") for one in block.labels.to_pylist()]
    assert labels == [column[0], None, column[2], column[2], None, column[0]]


# ---- a column for each feature -----------------------------------------------------------------------------------


def wide(rows: np.ndarray[Any, Any], **more: Any) -> dict[str, Any]:
    """A table of a column for each feature, in another order than their numbers'."""
    return {f"x{number}": rows[:, number] for number in reversed(range(rows.shape[1]))} | more


@pytest.mark.parametrize("ends", ["arrow", "parquet"])
@pytest.mark.parametrize("column", ["x*", "x[0-9]*", tuple(f"x{number}" for number in range(12))])
def test_columns_of_numbers_make_vectors(tmp_path: Path, ends: str, column: str | tuple[str, ...]) -> None:
    rows = np.arange(72).reshape(6, 12)
    columns = wide(rows, key=KEYS, xtra=KEYS) | {"x3": rows[:, 3].astype(np.float32)}
    write(tmp_path / f"a.{ends}", columns)
    blocks = read(tmp_path, column=column, id_column="key", carry="all")
    np.testing.assert_array_equal(vectors(blocks), rows)
    assert [one for block in blocks for one in block.ids.to_pylist()] == KEYS
    assert blocks[0].carried.column_names == ["xtra"]


def test_an_arrow_stream_of_columns_makes_vectors_too(tmp_path: Path) -> None:
    table = pa.table(wide(MATRIX))
    with pa.ipc.new_stream(tmp_path / "a.arrow", table.schema) as writer:
        writer.write_table(table)
    np.testing.assert_array_equal(vectors(read(tmp_path, column="x*")), MATRIX)


def test_a_null_among_columns_is_found_and_set_aside(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", wide(MATRIX) | {"x2": [0, 1, None, 3, 4, 5]})
    with pytest.raises(SourceError, match=r"row 2 of column 'x2' is null; fill .*data\.on_bad_rows: quarantine"):
        read(tmp_path, column="x*")
    assert len(vectors(read(tmp_path, column="x*", on_bad_rows="quarantine"))) == 5
    write(tmp_path / "a.parquet", wide(MATRIX) | {"x2": [0, 1, 2, 3, float("nan"), 5]})
    with pytest.raises(SourceError, match=r"row 4 of column 'x2': .*data\.on_bad_rows: quarantine"):
        read(tmp_path, column="x*")


def test_columns_that_are_missing_no_numbers_or_others_are_named(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", wide(MATRIX, text=KEYS))
    with pytest.raises(UnknownColumnError, match=r"has no column 'y\*'"):
        read(tmp_path, column="y*")
    with pytest.raises(UnknownColumnError, match=r"has no column 'x9'; did you mean 'x\d'"):
        read(tmp_path, column=("x0", "x9"))
    with pytest.raises(UnsupportedTypeError, match="column 'text' is string; expected floating-point"):
        read(tmp_path, column=("x0", "text"))
    write(tmp_path / "b.parquet", {f"x{number + 1}": MATRIX[:, number] for number in range(4)})
    with pytest.raises(UnknownColumnError, match=r"b\.parquet: its columns 'x\*' are others than in .*a\.parquet"):
        read(tmp_path, column="x*")
    np.save(tmp_path / "c.npy", MATRIX)
    with pytest.raises(UnknownColumnError, match=r"c\.npy: has no columns 'x\*'.*vectors only"):
        Source.open(SourceConfig(path=str(tmp_path / "c.npy"), column="x*"))


# ---- folders whose names are columns -----------------------------------------------------------------------------


@pytest.mark.parametrize("ends", ["arrow", "parquet"])
def test_folders_named_as_hive_does_are_columns(tmp_path: Path, ends: str) -> None:
    write(tmp_path / f"date=2024-01-01/lang=en/a.{ends}", {"vector": as_lists(MATRIX[:2])})
    write(tmp_path / f"date=2024-01-02/lang=a%2Fb/a.{ends}", {"vector": as_lists(MATRIX[2:])})
    blocks = read(tmp_path, label_column="lang", carry=("date",))
    assert [one for block in blocks for one in block.labels.to_pylist()] == ["en"] * 2 + ["a/b"] * 4
    dates = [row["date"] for block in blocks for row in block.carried.to_pylist()]
    assert dates == ["2024-01-01"] * 2 + ["2024-01-02"] * 4
    assert Source.open(SourceConfig(path=str(tmp_path), carry="all")).carried.names == ["date", "lang"]


def test_a_column_of_the_file_comes_before_its_folder(tmp_path: Path) -> None:
    write(tmp_path / "label=9/a.parquet", {"vector": as_lists(MATRIX), "label": np.arange(6)})
    assert [one for block in read(tmp_path, label_column="label") for one in block.labels.to_pylist()] == [*range(6)]


def test_features_that_are_no_numbers_are_passed_over_but_told(tmp_path: Path) -> None:
    decimals = pa.array([decimal.Decimal(n) for n in range(6)], pa.decimal128(10, 2))
    write(tmp_path / "a.parquet", wide(MATRIX, text=KEYS) | {"price": decimals, "label": np.arange(6)})
    source = Source.open(SourceConfig(path=str(tmp_path), column="*", label_column="label", carry=("text",)))
    assert source.features == ("x0", "x1", "x2", "x3")
    assert source.passed_over == ("price (decimal128(10, 2))",)
    assert Source.open(SourceConfig(path=str(tmp_path), column="x*")).passed_over == ()


def test_a_table_of_a_column_per_feature_is_told_how_to_take_them(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", wide(MATRIX))
    with pytest.raises(UnknownColumnError, match=r"has no column 'vector'; .* to a list of these or to a pattern"):
        read(tmp_path)


def test_the_nearest_column_is_one_whose_type_fits(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", {"weight": np.arange(6), "vectr": ["x"] * 6, "embedding": as_lists(MATRIX)})
    with pytest.raises(UnknownColumnError, match=r"has no column 'vector'; did you mean 'embedding'\?"):
        read(tmp_path)


def write_json(path: Path) -> None:
    path.write_text(json.dumps([{"vector": row} for row in MATRIX.tolist()]))


def write_safetensors(path: Path) -> None:
    pytest.importorskip("safetensors.numpy").save_file({"NAME": MATRIX}, path)


NO_SHARDS: dict[str, Callable[[Path], Any]] = {
    "json": write_json,
    "txt": lambda path: np.savetxt(path, MATRIX),
    "mat": lambda path: scipy.io.savemat(path, {"NAME": MATRIX}),
    "safetensors": write_safetensors,
    "gz": lambda path: path.write_bytes(gzip.compress(npy_bytes(MATRIX))),
}


def npy_bytes(array: np.ndarray[Any, Any]) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


@pytest.mark.parametrize("ends", NO_SHARDS)
def test_files_that_are_no_shards_are_answered_with_the_line_that_converts_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends: str
) -> None:
    name = "a.npy.gz" if ends == "gz" else f"a.{ends}"
    NO_SHARDS[ends](tmp_path / name)
    with pytest.raises(NoShardsError, match=rf"found 1 of \.{ends}; convert it: ") as caught:
        read(tmp_path)
    line = str(caught.value).partition("convert it: ")[2].partition("; data.path is")[0]
    monkeypatch.chdir(tmp_path)
    if ends == "gz":
        subprocess.run(line.replace("FILE", name).split(), check=True)
    else:
        modules = [importlib.import_module(one) for one in re.findall(r"(?<![.\w'])([a-z]+)\.", line.replace(name, ""))]
        exec(line, {"FILE": name, **{one.__name__: one for one in modules}})
    np.testing.assert_array_equal(vectors(read(tmp_path)), MATRIX)


def test_a_list_column_may_have_dots_in_its_name(tmp_path: Path) -> None:
    columns = {"text.embedding": as_lists(MATRIX, "list"), "text": as_lists(MATRIX + 1, "list")}
    write(tmp_path / "a.parquet", columns)
    np.testing.assert_array_equal(vectors(read(tmp_path, column="text.embedding")), MATRIX)

"""Carried columns: which, of what types, and what is refused before any row is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest

from distspectral.datasets import write_vectors
from distspectral.errors import UnknownColumnError, UnsupportedTypeError
from distspectral.storage.source.dataset import Source, SourceConfig
from tests.datasets import as_lists


def write(folder: Path, *shards: dict[str, Any], ends: str = "parquet") -> str:
    folder.mkdir()
    for index, columns in enumerate(shards):
        n_rows = len(next(iter(columns.values())))
        table = pa.table({"vector": as_lists(np.full((n_rows, 3), index, np.float32)), **columns})
        path = folder / f"part-{index}.{ends}"
        if ends == "parquet":
            pq.write_table(table, path)
        else:
            with pa.ipc.new_file(path, table.schema) as writer:
                writer.write_table(table)
    return str(folder)


def carried(source: Source) -> list[dict[str, Any]]:
    source = source.carrying()
    blocks = [block for shard in source.shards for block in source.read_blocks(shard, 2)]
    return [row for block in blocks for row in block.carried.to_pylist()]  # type: ignore[union-attr]


@pytest.mark.parametrize("ends", ["parquet", "arrow"])
def test_blocks_hold_the_named_columns_in_order(tmp_path: Path, ends: str) -> None:
    path = write(tmp_path / "data", {"id": [1, 2, 3], "text": ["a", None, "c"], "tags": [["x"], [], None]}, ends=ends)
    source = Source.open(SourceConfig(path=path, id_column="id", carry=("tags", "text")))
    assert source.carried.names == ["tags", "text"]
    assert carried(source) == [
        {"tags": ["x"], "text": "a"},
        {"tags": [], "text": None},
        {"tags": None, "text": "c"},
    ]


def test_all_is_every_column_but_vectors_and_ids(tmp_path: Path) -> None:
    path = write(tmp_path / "data", {"url": ["u"], "id": [1], "label": [0]})
    config = SourceConfig(path=path, id_column="id", label_column="label", carry="all")
    assert Source.open(config).carried.names == ["url", "label"]


def test_rows_that_are_left_out_are_not_carried(tmp_path: Path) -> None:
    vectors = np.ones((3, 2), np.float32)
    vectors[1] = np.nan
    (tmp_path / "data").mkdir()
    pq.write_table(pa.table({"vector": as_lists(vectors), "text": ["a", "b", "c"]}), tmp_path / "data/a.parquet")
    source = Source.open(SourceConfig(path=str(tmp_path / "data"), carry=("text",), on_bad_rows="quarantine"))
    assert [row["text"] for row in carried(source)] == ["a", "c"]


def test_a_column_of_nulls_in_one_shard_has_the_type_of_the_others(tmp_path: Path) -> None:
    path = write(tmp_path / "data", {"x": pa.nulls(1)}, {"x": pa.array([2], pa.int64())}, {"x": pa.array([3], "int8")})
    source = Source.open(SourceConfig(path=path, carry=("x",)))
    assert source.carried.field("x").type == pa.int64()
    assert [row["x"] for row in carried(source)] == [None, 2, 3]


def test_a_value_that_does_not_fit_the_type_of_the_other_shards_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "data", {"x": pa.array([2], pa.int8())}, {"x": pa.array([300], pa.int64())})
    source = Source.open(SourceConfig(path=path, carry=("x",)))
    with pytest.raises(UnsupportedTypeError, match=r"part-1\.parquet: column 'x' does not fit int8"):
        carried(source)


def test_what_is_carried_changes_no_fingerprint_of_the_source(tmp_path: Path) -> None:
    path = write(tmp_path / "data", {"x": [1]})
    plain, carrying = (Source.open(SourceConfig(path=path, carry=carry)) for carry in ((), ("x",)))
    assert plain.fingerprint() == carrying.fingerprint()


def test_a_missing_column_is_named_with_those_there_are(tmp_path: Path) -> None:
    path = write(tmp_path / "data", {"text": ["a"]}, {"other": ["a"]})
    with pytest.raises(UnknownColumnError, match=r"part-1\.parquet: has no column 'text'; .*It has vector, other"):
        Source.open(SourceConfig(path=path, carry=("text",)))


def test_types_that_cannot_become_one_another_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "data", {"x": [1]}, {"x": [[1]]})
    with pytest.raises(UnsupportedTypeError, match=r"part-1\.parquet: column 'x' is list.*but int64 in .*part-0"):
        Source.open(SourceConfig(path=path, carry=("x",)))


def test_a_type_that_parquet_cannot_hold_is_refused(tmp_path: Path) -> None:
    months = pa.array([pa.MonthDayNano([1, 2, 3])], pa.month_day_nano_interval())
    path = write(tmp_path / "data", {"x": months}, ends="arrow")
    with pytest.raises(UnsupportedTypeError, match=r"column 'x' is month_day_nano_interval, which Parquet cannot hold"):
        Source.open(SourceConfig(path=path, carry=("x",)))


def test_files_of_vectors_alone_have_nothing_to_carry(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones((3, 2), np.float32))
    assert Source.open(SourceConfig(path=str(tmp_path / "a.npy"), carry="all")).carried.names == []
    with pytest.raises(UnknownColumnError, match=r"has no column 'x', only vectors; leave out data\.carry"):
        Source.open(SourceConfig(path=str(tmp_path / "a.npy"), carry=("x",)))


def test_the_ids_are_carried_under_another_name_only(tmp_path: Path) -> None:
    path = write(tmp_path / "data", {"id": [1], "url": ["u"]})
    opened = [Source.open(SourceConfig(path=path, id_column=name, carry=("id", "url"))) for name in ("id", "url")]
    assert [source.carried.names for source in opened] == [["url"], ["id", "url"]]


def test_labels_may_be_carried_too(tmp_path: Path) -> None:
    write_vectors(str(tmp_path / "data"), np.ones((4, 2), np.float32), labels=np.arange(4))
    source = Source.open(SourceConfig(path=str(tmp_path / "data"), label_column="label", carry=("label",)))
    assert [row["label"] for row in carried(source)] == [0, 1, 2, 3]

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distspectral.errors import ShardWidthError, SourceError, UnsupportedTypeError
from distspectral.storage.rows.block import Block
from distspectral.storage.source.dataset import Source, SourceConfig
from tests.datasets import as_lists, write_raw, write_table

MATRIX = np.arange(40 * 4).reshape(40, 4).astype(np.float64)


def read(path: Path, block_rows: int = 9, **config: Any) -> tuple[Source, list[Block], list[dict[str, Any]]]:
    """Return an opened source, its good blocks and the rows left out, of one shard."""
    source = Source.open(SourceConfig(path=str(path), on_bad_rows="quarantine", **config))
    left_out: list[pa.RecordBatch] = []
    blocks = list(source.read_blocks(source.shards[0], block_rows, left_out))
    return source, blocks, [row for table in left_out for row in table.to_pylist()]


def rows_of(blocks: list[Block]) -> list[int]:
    offsets = (np.arange(block.n_rows) if block.offsets is None else block.offsets for block in blocks)
    return [row for block, part in zip(blocks, offsets, strict=True) for row in (block.first_row + part).tolist()]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("kind", ["fixed", "list", "large_list"])
@pytest.mark.parametrize("name", ["a.parquet", "a.arrow", "a.ipc"])
def test_rows_that_are_not_finite_are_left_out_and_the_others_keep_order_and_ids(
    tmp_path: Path, name: str, kind: str, dtype: str
) -> None:
    bad = MATRIX.copy()
    bad[0, 1], bad[17, 3], bad[39, 0] = np.nan, np.inf, -np.inf
    write_table(tmp_path / name, {"vector": as_lists(bad.astype(dtype), kind), "key": np.arange(40) * 10})
    source, blocks, left_out = read(tmp_path, id_column="key")
    good = [row for row in range(40) if row not in (0, 17, 39)]
    assert source.n_rows == 40
    np.testing.assert_array_equal(np.concatenate([block.vectors for block in blocks]), MATRIX[good])
    assert [one for block in blocks for one in block.ids.to_pylist()] == [10 * row for row in good]
    assert rows_of(blocks) == good
    uri = str(tmp_path / name)
    assert left_out == [
        {"id": 0, "file": uri, "row": 0, "reason": "NaN or infinity", "feature": 1, "found": "nan"},
        {"id": 170, "file": uri, "row": 17, "reason": "NaN or infinity", "feature": 3, "found": "inf"},
        {"id": 390, "file": uri, "row": 39, "reason": "NaN or infinity", "feature": 0, "found": "-inf"},
    ]


@pytest.mark.parametrize("name", ["a.npy", "a.fbin"])
def test_row_numbers_stay_the_ids_of_rows_that_have_none(tmp_path: Path, name: str) -> None:
    write_raw(tmp_path / name, MATRIX[:3])
    bad = MATRIX.copy()
    bad[[5, 6]] = np.nan
    write_raw(tmp_path / f"b{name[1:]}", bad)
    source = Source.open(SourceConfig(path=str(tmp_path), on_bad_rows="quarantine"))
    left_out: list[pa.RecordBatch] = []
    ids = [
        b.global_ids(source.shards[1].first_row).to_pylist() for b in source.read_blocks(source.shards[1], 6, left_out)
    ]
    assert [one for part in ids for one in part] == [*range(3, 8), *range(10, 43)]
    assert [row["id"] for table in left_out for row in table.to_pylist()] == [8, 9]


def test_every_reason_has_its_row(tmp_path: Path) -> None:
    rows: list[Any] = MATRIX[:10].tolist()
    rows[1] = None
    rows[2] = [1.0, 2.0]
    rows[3][2] = None
    rows[4][1] = float("nan")
    rows[5][0] = 1e300
    ids: list[Any] = list(range(10))
    ids[6], ids[7] = None, 2**63
    labels: list[Any] = ["x"] * 10
    labels[8] = None
    columns = {"vector": pa.array(rows, pa.list_(pa.float64())), "id": pa.array(ids, pa.uint64()), "label": labels}
    write_table(tmp_path / "a.arrow", columns)
    _, blocks, left_out = read(tmp_path, id_column="id", label_column="label")
    assert rows_of(blocks) == [0, 8, 9], "a row without a label is a row"
    assert [(row["row"], row["id"], row["reason"], row["feature"], row["found"]) for row in left_out] == [
        (1, 1, "null vector", None, None),
        (2, 2, "wrong width", None, "2"),
        (3, 3, "null feature", 2, None),
        (4, 4, "NaN or infinity", 1, "nan"),
        (5, 5, "beyond float32", 0, "1e+300"),
        (6, None, "null id", None, None),
        (7, None, "id beyond int64", None, str(2**63)),
    ]


def test_a_value_that_scaling_carries_out_of_range_is_bad(tmp_path: Path) -> None:
    bad = MATRIX.copy()
    bad[3, 2] = 1e30
    write_raw(tmp_path / "a.npy", bad)
    assert read(tmp_path)[2] == []
    _, blocks, left_out = read(tmp_path, scale=1e10)
    assert [row["reason"] for row in left_out] == ["beyond float32"]
    assert len(rows_of(blocks)) == 39


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
def test_the_commonest_width_is_the_right_one(tmp_path: Path, name: str) -> None:
    rows = MATRIX.tolist()
    rows[0], rows[1], rows[20] = [1.0], None, [1.0] * 7
    write_table(tmp_path / name, {"vector": pa.array(rows, pa.list_(pa.float32()))})
    source, blocks, left_out = read(tmp_path)
    assert source.dim == 4
    assert [(row["row"], row["found"]) for row in left_out] == [(0, "1"), (1, None), (20, "7")]
    assert len(rows_of(blocks)) == 37


def test_null_values_of_a_dictionary_are_null_ids(tmp_path: Path) -> None:
    ids = pa.DictionaryArray.from_arrays(pa.array([0, 1, 0]), pa.array(["a", None]))
    write_table(tmp_path / "a.arrow", {"vector": as_lists(MATRIX[:3]), "id": ids})
    assert [(row["row"], row["reason"]) for row in read(tmp_path, id_column="id")[2]] == [(1, "null id")]
    source = Source.open(SourceConfig(path=str(tmp_path), id_column="id"))
    with pytest.raises(SourceError, match=r"row 1 of column 'id' is null"):
        list(source.read_blocks(source.shards[0]))


def test_a_shard_of_bad_rows_only_takes_its_width_from_the_others(tmp_path: Path) -> None:
    kind = pa.list_(pa.float32())
    write_table(tmp_path / "a.parquet", {"vector": pa.array([None, None], kind)})
    write_table(tmp_path / "b.parquet", {"vector": pa.array(MATRIX.tolist(), kind)})
    source, blocks, left_out = read(tmp_path)
    assert (source.dim, source.n_rows) == (4, 42)
    assert blocks == []
    assert [row["row"] for row in left_out] == [0, 1]
    (tmp_path / "b.parquet").unlink()
    with pytest.raises(UnsupportedTypeError, match=r"a\.parquet"):
        read(tmp_path)


def test_a_whole_shard_of_another_width_is_another_dataset_not_a_bad_row(tmp_path: Path) -> None:
    write_raw(tmp_path / "a.npy", MATRIX)
    write_raw(tmp_path / "b.npy", MATRIX[:, :3])
    with pytest.raises(ShardWidthError, match=r"b\.npy: vectors have width 3, but 4"):
        read(tmp_path)


def test_the_policy_is_part_of_the_fingerprint_and_the_default_changes_nothing(tmp_path: Path) -> None:
    write_raw(tmp_path / "a.npy", MATRIX)
    prints = [
        Source.open(SourceConfig(path=str(tmp_path), **config)).fingerprint()
        for config in ({}, {"on_bad_rows": "quarantine"}, {"follow_links": True})
    ]
    assert prints[0] == prints[2] != prints[1]


def test_a_clean_dataset_reads_as_without_the_policy(tmp_path: Path) -> None:
    pq.write_table(pa.table({"vector": as_lists(MATRIX)}), tmp_path / "a.parquet")
    _, blocks, left_out = read(tmp_path)
    assert left_out == []
    assert all(block.offsets is None for block in blocks)

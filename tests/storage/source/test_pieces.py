"""A large file is several shards: the same rows, ids and messages as if it were one."""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest
from pyarrow import fs

from distspectral.errors import CorruptShardError, NonFiniteRowError, SourceError
from distspectral.storage.source.dataset import Source, SourceConfig
from distspectral.storage.source.formats import Threads, parquet
from distspectral.storage.source.pieces import PIECE_BYTES, PIECE_ROWS, piece_rows, pieces
from tests.datasets import as_lists, read_all, write_raw, write_table

MATRIX = (np.arange(50 * 6).reshape(50, 6) % 97).astype(np.float32)
NAMES = ["a.parquet", "a.arrow", "a.npy", "a.fbin"]


def write(path: Path, matrix: np.ndarray[Any, Any], **columns: Any) -> None:
    """Write a file, a table in parts of 16 rows."""
    if path.suffix in (".npy", ".fbin"):
        write_raw(path, matrix)
    else:
        write_table(path, {"vector": as_lists(matrix), **columns})


def cut(path: Path, most_rows: int = 20, **config: Any) -> Source:
    return Source.open(SourceConfig(path=str(path), **config), most_rows=most_rows)


def test_files_are_cut_by_rows_and_by_bytes() -> None:
    assert piece_rows(1) == PIECE_ROWS
    assert piece_rows(96) * 96 * 4 <= PIECE_BYTES < (piece_rows(96) + 1) * 96 * 4
    assert piece_rows(1 << 30) == 1


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        (None, [(0, 16), (16, 17), (33, 17)]),
        ([16, 16, 16, 2], [(0, 16), (16, 32), (48, 2)]),
        ([10] * 5, [(0, 20), (20, 20), (40, 10)]),
        ([0, 5, 40, 0, 5, 0], [(0, 45), (45, 5)]),
    ],
)
def test_cuts_lie_between_parts_and_leave_no_row_out(parts: list[int] | None, expected: list[tuple[int, int]]) -> None:
    found = pieces(50, parts, 20)
    assert [piece[:2] for piece in found] == expected
    if parts is not None:
        assert [sum(parts[part] for part in piece.parts or ()) for piece in found] == [n for _, n in expected]


@pytest.mark.parametrize("parts", [None, [16, 16, 18]])
def test_a_small_file_and_one_of_a_single_part_are_whole(parts: list[int] | None) -> None:
    assert pieces(50, parts, 50) == [(0, 50, None)]
    assert pieces(50, [50], 20) == [(0, 50, None)]


@pytest.mark.parametrize("name", NAMES)
def test_pieces_hold_the_files_rows_in_order_and_number_them(tmp_path: Path, name: str) -> None:
    for folder, matrix in (("a", MATRIX[:7]), ("b", MATRIX), ("c", MATRIX[:3])):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder / name, matrix)
    source = cut(tmp_path)
    assert [shard.file.name[0] for shard in source.shards] == ["a", "b", "b", "b", "c"]
    assert source.n_rows == 60
    assert source.n_bytes == sum(path.stat().st_size for path in tmp_path.glob(f"*/{name}"))
    np.testing.assert_array_equal(read_all(source, 7), np.concatenate([MATRIX[:7], MATRIX, MATRIX[:3]]))
    ids = [block.global_ids(shard.first_row) for shard in source.shards for block in source.read_blocks(shard, 7)]
    assert pa.concat_arrays(ids).to_pylist() == list(range(60))


@pytest.mark.parametrize("name", NAMES)
def test_a_piece_is_read_without_what_lies_before_it(tmp_path: Path, name: str) -> None:
    spoilt = MATRIX.copy()
    spoilt[:32] = np.nan
    write(tmp_path / name, spoilt)
    source = cut(tmp_path)
    with pytest.raises(NonFiniteRowError, match="row 0 "):
        list(source.read_blocks(source.shards[0]))
    blocks = list(source.read_blocks(source.shards[-1]))
    assert blocks[0].first_row == 0
    np.testing.assert_array_equal(
        np.concatenate([block.vectors for block in blocks]), MATRIX[-source.shards[-1].n_rows :]
    )


@pytest.mark.parametrize("compression", [None, "zstd"])
def test_record_batches_are_counted_whatever_they_hold(tmp_path: Path, compression: str | None) -> None:
    names = pa.array([f"row {row % 5}" for row in range(50)]).dictionary_encode()
    table = pa.table({"name": names, "vector": as_lists(MATRIX)})
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.ipc.new_file(tmp_path / "a.arrow", table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=16)
    source = cut(tmp_path)
    assert [shard.n_rows for shard in source.shards] == [16, 32, 2]
    np.testing.assert_array_equal(read_all(source), MATRIX)


def test_a_file_whose_messages_are_not_found_is_read_as_a_whole(tmp_path: Path) -> None:
    table = pa.table({"vector": as_lists(MATRIX)})
    options = pa.ipc.IpcWriteOptions(use_legacy_format=True)  # without the marker before each
    with pa.ipc.new_file(tmp_path / "a.arrow", table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=16)
    source = cut(tmp_path)
    assert [shard.n_rows for shard in source.shards] == [50]
    np.testing.assert_array_equal(read_all(source), MATRIX)


def cached_bytes(path: Path) -> int:
    """Return how much of a file is in the page cache."""
    size = path.stat().st_size
    pages = (ctypes.c_ubyte * -(-size // mmap.PAGESIZE))()
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), size, access=mmap.ACCESS_READ) as mapped:
        place = np.frombuffer(mapped, np.uint8).ctypes.data
        assert ctypes.CDLL(None).mincore(ctypes.c_void_p(place), ctypes.c_size_t(size), pages) == 0
    return mmap.PAGESIZE * sum(page & 1 for page in pages)


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux what it has cached")
def test_opening_an_arrow_file_reads_next_to_nothing_of_its_rows(tmp_path: Path) -> None:
    path, vectors = tmp_path / "a.arrow", np.zeros((1 << 18, 48), np.float32)
    table = pa.table({"vector": as_lists(vectors)})
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=1 << 15)
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    before = cached_bytes(path)
    assert len(cut(path, 1 << 15).shards) == 8
    assert cached_bytes(path) - before < path.stat().st_size / 3  # a disk may read 8 MiB ahead for the footer


def test_a_stream_is_read_as_a_whole(tmp_path: Path) -> None:
    write(tmp_path / "a.ipc", MATRIX)
    (shard,) = cut(tmp_path).shards
    assert (shard.n_rows, shard.parts) == (50, None)


@pytest.mark.parametrize("name", NAMES)
def test_messages_and_quarantine_count_rows_of_the_file(tmp_path: Path, name: str) -> None:
    spoilt = MATRIX.copy()
    spoilt[37, 4] = np.nan
    write(tmp_path / name, spoilt)
    with pytest.raises(NonFiniteRowError, match=rf"{name}: row 37 of column 'vector', feature 4"):
        read_all(cut(tmp_path), 5)
    source = cut(tmp_path, on_bad_rows="quarantine")
    left_out: list[pa.RecordBatch] = []
    rows = [block for shard in source.shards for block in source.read_blocks(shard, 5, left_out)]
    assert sum(block.n_rows for block in rows) == 49
    (found,) = [row for table in left_out for row in table.to_pylist()]
    assert (found["file"], found["row"], found["id"]) == (str(tmp_path / name), 37, 37)


def test_a_bad_id_is_named_by_its_row_of_the_file(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", MATRIX, id=[*range(40), None, *range(41, 50)])
    with pytest.raises(SourceError, match="row 40 of column 'id' is null"):
        read_all(cut(tmp_path, id_column="id"))


def test_a_whole_files_fingerprint_does_not_know_of_pieces(tmp_path: Path) -> None:
    write(tmp_path / "a.npy", MATRIX)
    whole, wide, fine = (cut(tmp_path, most) for most in (50, 1000, 20))
    assert whole.fingerprint() == wide.fingerprint() != fine.fingerprint()
    assert whole.shard_fingerprints() == wide.shard_fingerprints()
    assert len(set(fine.shard_fingerprints())) == 3


def test_pieces_have_fingerprints_of_their_own_where_ids_are_given(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", MATRIX, id=np.arange(50))
    assert len(set(cut(tmp_path, id_column="id").shard_fingerprints())) == 3


def test_pieces_of_a_file_that_was_written_again_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", MATRIX)
    source = cut(tmp_path)
    write(tmp_path / "a.parquet", np.vstack([MATRIX, MATRIX]))
    with pytest.raises(CorruptShardError, match=r"bytes long, but .* when it was listed"):
        list(source.read_blocks(source.shards[-1]))


@pytest.mark.parametrize("name", NAMES)
def test_remote_files_are_cut_but_for_record_batches(tmp_path: Path, name: str) -> None:
    write(tmp_path / name, MATRIX)
    memory, root = fs.FileSystem.from_uri(f"fsspec+memory:///{tmp_path.name}-{name}")
    memory.create_dir(root)
    with memory.open_output_stream(f"{root}/{name}") as stream:
        stream.write((tmp_path / name).read_bytes())
    source = Source.open(SourceConfig(path=f"fsspec+memory://{root}"), most_rows=20)
    assert len(source.shards) == (1 if name == "a.arrow" else 3)
    blocks = [block for shard in source.shards for block in source.reader.read_blocks(shard, 5, n_threads=2)]
    np.testing.assert_array_equal(np.concatenate([block.vectors for block in blocks]), MATRIX)


# ---- several threads ----------------------------------------------------------------------------------------------


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """The batches decoded so far, each with its thread's name and its rows."""
    found: list[tuple[str, int]] = []
    validated = parquet.validated

    def noted(batch: pa.RecordBatch) -> pa.RecordBatch:
        found.append((threading.current_thread().name, batch.num_rows))
        return validated(batch)

    monkeypatch.setattr(parquet, "validated", noted)
    return found


def groups_of_eight(folder: Path, threads: tuple[int, int]) -> Iterator[pa.RecordBatch]:
    """Return the batches of seven row groups, 5 and 3 rows each."""
    table = pa.table({"vector": as_lists(MATRIX), "id": np.arange(50)})
    pq.write_table(table, folder / "a.parquet", row_group_size=8)
    source = Source.open(SourceConfig(path=str(folder), id_column="id"))
    return parquet.batches(source.shards[0].file, source.config.columns, 5, None, Threads(*threads))


@pytest.mark.parametrize(("threads", "in_pool"), [((1, 99), False), ((3, 99), True), ((3, 16), True), ((3, 15), False)])
def test_row_groups_are_decoded_by_several_threads_as_far_as_they_fit(
    tmp_path: Path, decoded: list[tuple[str, int]], threads: tuple[int, int], in_pool: bool
) -> None:
    table = pa.Table.from_batches(groups_of_eight(tmp_path, threads))
    assert table["id"].to_pylist() == list(range(50))
    np.testing.assert_array_equal(np.stack(table["vector"].to_numpy()), MATRIX)
    assert all(name.startswith("decode") for name, _ in decoded) == in_pool


def test_no_more_is_decoded_ahead_than_may_be_held(tmp_path: Path, decoded: list[tuple[str, int]]) -> None:
    batches = groups_of_eight(tmp_path, (3, 16))
    next(batches)
    batches.close()  # type: ignore[attr-defined]  # returns when all that was handed out is decoded
    assert sum(n_rows for _, n_rows in decoded) == 16


def test_what_a_decoding_thread_meets_is_named(tmp_path: Path) -> None:
    spoilt = MATRIX.copy()
    spoilt[37, 4] = np.inf
    write(tmp_path / "a.parquet", spoilt)
    source = cut(tmp_path, 50)
    with pytest.raises(NonFiniteRowError, match="row 37 "):
        list(source.reader.read_blocks(source.shards[0], 5, n_threads=3))

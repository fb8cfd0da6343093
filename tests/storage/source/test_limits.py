from __future__ import annotations

import struct
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.ipc
import pytest
from pyarrow import fs

from distspectral.errors import AbsurdShardError, CorruptShardError, SourceError
from distspectral.storage.source import limits
from distspectral.storage.source.dataset import Source, SourceConfig
from distspectral.storage.source.listing import ShardFile
from tests.datasets import as_lists, read_all


def opened(path: Path, **config: Any) -> Source:
    return Source.open(SourceConfig(path=str(path), **config))


def shard(filesystem: fs.FileSystem, size: int = 1000) -> ShardFile:
    return ShardFile(filesystem, "/a.parquet", "mem:///a.parquet", "a.parquet", "/", size, None)


def footer(counts: list[int], n_rows: int, group_bytes: int = 1) -> Any:
    """Stand-in for a Parquet footer: pyarrow writes none that contradicts itself."""
    column = SimpleNamespace(total_compressed_size=group_bytes)
    groups = [SimpleNamespace(num_rows=count, num_columns=1, column=lambda _: column) for count in counts]
    return SimpleNamespace(num_rows=n_rows, num_row_groups=len(groups), row_group=groups.__getitem__)


@pytest.mark.parametrize("n_batches", [1, 17])
def test_a_decompression_bomb_is_refused_before_a_row_is_read(tmp_path: Path, n_batches: int) -> None:
    zeros = pa.table({"vector": as_lists(np.zeros((1 << 12, 1 << 12), np.uint8))})  # 64 MiB as float32
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_file(tmp_path / "a.arrow", zeros.schema, options=options) as writer:
        for _ in range(n_batches):
            writer.write_table(zeros)
    if n_batches == 1:
        assert opened(tmp_path).n_rows == 1 << 12, "harmless as long as it is small"
        return
    with pytest.raises(AbsurdShardError, match=r"a\.arrow: claims 69,632 rows of width 4,096, 1\.1 GiB"):
        opened(tmp_path)


def test_an_arrow_file_that_claims_a_trillion_rows_is_refused(tmp_path: Path) -> None:
    table = pa.table({"vector": as_lists(np.ones((3, 4), np.float32)), "other": [1, 2, 3]})
    with pa.ipc.new_file(tmp_path / "a.arrow", table.schema) as writer:
        writer.write_table(table)
    content = (tmp_path / "a.arrow").read_bytes()
    at = content.index(struct.pack("<q", 3))  # the first is the batch's own length, in its header
    (tmp_path / "a.arrow").write_bytes(content[:at] + struct.pack("<q", 10**12) + content[at + 8 :])
    with pytest.raises(SourceError, match=r"a\.arrow: (claims|cannot be read)"):
        read_all(opened(tmp_path))


@pytest.mark.parametrize(
    ("counts", "n_rows"), [([3, 4], 8), ([-1, 9], 8), ([], 8)], ids=["do not add up", "negative", "none"]
)
def test_row_groups_that_contradict_the_footer_are_corrupt(counts: list[int], n_rows: int) -> None:
    with pytest.raises(CorruptShardError, match=rf"a\.parquet: the footer counts {n_rows} rows, its {len(counts)} row"):
        limits.refuse_absurd_groups(shard(fs.LocalFileSystem()), footer(counts, n_rows))


def test_a_row_group_that_would_be_fetched_whole_must_fit_into_memory() -> None:
    memory, _ = fs.FileSystem.from_uri("fsspec+memory:///")
    large = footer([8], 8, group_bytes=5 << 30)
    with pytest.raises(AbsurdShardError, match=r"row group 0 has 5\.0 GiB .* at most 4 GiB"):
        limits.refuse_absurd_groups(shard(memory), large)
    limits.refuse_absurd_groups(shard(fs.LocalFileSystem()), large)


def test_a_width_beyond_a_million_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((1, limits.MAX_DIM + 1), np.uint8))
    with pytest.raises(AbsurdShardError, match=r"a\.npy: vectors have width 1,048,577, expected at most 1,048,576"):
        opened(tmp_path)


def test_negative_dimensions_are_corrupt_even_where_their_product_fits(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((2, 3), np.float32))
    content = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(content.replace(b"(2, 3), }  ", b"(-2, -3), }"))
    with pytest.raises(CorruptShardError, match=r"a\.npy: .*header is damaged: shape \(-2, -3\)"):
        opened(tmp_path)


@pytest.mark.parametrize("shape", [(2**32 - 1, 4), (3, 2**31), (0, 0xFFFFFFFF)])
def test_an_fbin_header_beyond_its_file_is_corrupt(tmp_path: Path, shape: tuple[int, int]) -> None:
    (tmp_path / "a.fbin").write_bytes(struct.pack("<II", *shape) + bytes(48))
    if shape[0]:
        with pytest.raises(CorruptShardError, match=rf"56 bytes long.*{shape[0]} rows of width {shape[1]}.*write the"):
            opened(tmp_path)
    else:
        with pytest.raises(CorruptShardError, match="56 bytes long"):
            opened(tmp_path)


def test_a_big_endian_fbin_is_told_from_a_damaged_one(tmp_path: Path) -> None:
    (tmp_path / "a.fbin").write_bytes(struct.pack(">II", 6, 2) + np.ones((6, 2), ">f4").tobytes())
    with pytest.raises(CorruptShardError, match=r"as big-endian it agrees with the size \(6 rows of width 2\)"):
        opened(tmp_path)


def test_offsets_that_point_outside_are_corrupt_and_do_not_crash(tmp_path: Path) -> None:
    values = pa.array(np.arange(12, dtype=np.float32))
    offsets = pa.array([0, 4, 8, 12], pa.int32())
    path = tmp_path / "a.arrow"
    table = pa.table({"vector": pa.ListArray.from_arrays(offsets, values)})
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table)
    good, bad = (struct.pack("<4i", 0, 4, end, 12) for end in (8, 1 << 30))
    content = path.read_bytes()
    assert good in content
    path.write_bytes(content.replace(good, bad))
    with pytest.raises(CorruptShardError, match=r"a\.arrow: cannot be read as arrow"):
        read_all(opened(tmp_path))

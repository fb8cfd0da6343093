from __future__ import annotations

import multiprocessing
import os
import pickle
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import fs

from distspectral.errors import DamagedArtifactError, OutputNotWritableError
from distspectral.storage.artifact.cache import NodeCache


@pytest.fixture
def remote(tmp_path: Path) -> fs.FileSystem:
    """A filesystem that cannot be mapped, with four files of 1,000 bytes."""
    (tmp_path / "remote").mkdir()
    for number in range(4):
        (tmp_path / "remote" / f"{number}").write_bytes(bytes([number]) * 1000)
    return fs.SubTreeFileSystem(str(tmp_path / "remote"), fs.LocalFileSystem())


@pytest.fixture
def cache(tmp_path: Path) -> NodeCache:
    return NodeCache(str(tmp_path / "cache"), 2500)


def copies(cache: NodeCache) -> set[str]:
    assert cache.directory is not None
    return {str(path) for path in Path(cache.directory).iterdir() if path.suffix in (".arrow", ".tmp")}


def test_a_copy_is_fetched_once(cache: NodeCache, remote: fs.FileSystem) -> None:
    path = cache.path(remote, "1", "mem://1")
    assert Path(path).read_bytes() == b"\x01" * 1000
    before = os.stat(path).st_ino
    assert cache.path(remote, "1", "mem://1") == path
    assert pickle.loads(pickle.dumps(cache)).path(remote, "1", "mem://1") == path
    assert os.stat(path).st_ino == before


def test_the_copies_used_longest_ago_make_room(cache: NodeCache, remote: fs.FileSystem) -> None:
    zero, one = (cache.path(remote, name, name) for name in "01")
    os.utime(Path(zero).with_suffix(".state"), ns=(1, 1))
    os.utime(Path(one).with_suffix(".state"), ns=(2, 2))
    assert cache.path(remote, "0", "0") == zero, "used again, so younger than the other"
    mapped = pa.memory_map(one, "r")
    two = cache.path(remote, "2", "2")
    assert copies(cache) == {zero, two}
    assert mapped.read() == b"\x01" * 1000, "who has mapped it keeps it"


def test_a_process_that_finds_a_spoilt_copy_fetches_it_anew(cache: NodeCache, remote: fs.FileSystem) -> None:
    path = Path(cache.path(remote, "1", "1"))
    spoilt = bytearray(path.read_bytes())
    spoilt[500] ^= 1
    path.write_bytes(spoilt)
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as another:
        fetched = another.submit(cache.path, remote, "1", "1").result()
    assert Path(fetched).read_bytes() == b"\x01" * 1000


def test_a_file_written_anew_is_another_file(cache: NodeCache, remote: fs.FileSystem) -> None:
    cache.path(remote, "1", "1")
    with remote.open_output_stream("1") as stream:
        stream.write(b"new" * 333 + b"!")
    assert Path(cache.path(remote, "1", "1")).read_bytes()[:3] == b"new"


def test_what_a_killed_process_left_is_swept(cache: NodeCache, remote: fs.FileSystem) -> None:
    for name in "01":
        cache.path(remote, name, name)
    assert cache.directory is not None
    left, busy = (Path(cache.directory) / name for name in ("a.tmp", "b.tmp"))
    left.touch()
    busy.touch()
    os.utime(left, (1, 1))
    cache.path(remote, "2", "2")  # beyond the limit, so all are counted
    assert not left.exists()
    assert busy.exists()


def test_missing_cut_and_unwritable_are_told_apart(cache: NodeCache, remote: fs.FileSystem, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        cache.path(remote, "9", "s3://bucket/9")
    with pytest.raises(DamagedArtifactError, match="s3://bucket/1: 1000 bytes arrived, the file has 1001"):
        cache.path(remote, "1", "s3://bucket/1", known=(1001, "longer than it is"))
    assert not [path for path in copies(cache) if path.endswith(".tmp")]
    (tmp_path / "file").touch()
    with pytest.raises(OutputNotWritableError, match=r"storage\.cache_dir"):
        NodeCache(str(tmp_path / "file" / "cache"), 10).path(remote, "1", "1")


def test_mapped_values_are_those_of_the_file(cache: NodeCache, remote: fs.FileSystem) -> None:
    values = np.arange(100)
    with remote.open_output_stream("table") as stream, pa.ipc.new_file(stream, pa.schema([("a", pa.int64())])) as out:
        out.write_batch(pa.record_batch([pa.array(values)], names=["a"]))
    table = pa.ipc.open_file(pa.memory_map(cache.path(remote, "table", "table"), "r")).read_all()
    assert np.array_equal(table["a"].to_numpy(), values)

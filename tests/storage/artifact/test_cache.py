from __future__ import annotations

import multiprocessing
import os
import pickle
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import fs

from distspectral.errors import DamagedArtifactError, OutputNotWritableError
from distspectral.storage.artifact.cache import CHUNK_BYTES, NodeCache
from distspectral.storage.filesystems import resolve
from tests.storage.artifact.fetching import fetch_all
from tests.storage.s3 import S3Server


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


def spoil(copy: str) -> None:
    """Change a byte of a copy and leave its size and times as they are."""
    state, content = os.stat(copy), bytearray(Path(copy).read_bytes())
    content[500] ^= 1
    with open(copy, "r+b") as file:
        file.write(content)
    os.utime(copy, ns=(state.st_atime_ns, state.st_mtime_ns))


def test_a_copy_found_whole_is_not_summed_up_again_until_the_node_starts_anew(
    cache: NodeCache, remote: fs.FileSystem
) -> None:
    copy = cache.path(remote, "1", "1")
    spoil(copy)
    assert Path(cache.path(remote, "1", "1")).read_bytes() != b"\x01" * 1000
    state = Path(copy).with_suffix(".state")
    state.write_text(" ".join(["another-start", *state.read_text().split()[1:]]))
    assert Path(cache.path(remote, "1", "1")).read_bytes() == b"\x01" * 1000


def test_a_whole_copy_that_was_moved_in_is_kept(cache: NodeCache, remote: fs.FileSystem) -> None:
    copy = Path(cache.path(remote, "1", "1"))
    copy.rename(copy.with_suffix(".aside"))
    Path(copy).write_bytes(copy.with_suffix(".aside").read_bytes())
    before = copy.stat().st_ino
    assert cache.path(remote, "1", "1") == str(copy)
    assert copy.stat().st_ino == before, "its checksum was right"


def test_only_a_whole_copy_stands(cache: NodeCache, remote: fs.FileSystem) -> None:
    known = (1000, "first")
    assert cache.standing(remote, "1", known) is None
    copy = cache.path(remote, "1", "1", known)
    assert cache.standing(remote, "1", known) == copy
    os.utime(copy)
    assert cache.standing(remote, "1", known) is None, "it may have changed"


def test_each_node_caches_in_its_own_temporary_directory(
    tmp_path: Path, remote: fs.FileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = NodeCache(None, 2500)
    for node in ("a", "b"):
        (tmp_path / node).mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / node))
        own = tmp_path / node / f"distspectral-{os.getuid()}"
        assert Path(cache.path(remote, "1", "1")).parent == own / "cache"
        assert own.stat().st_mode & 0o777 == 0o700


def test_a_directory_that_others_may_read_is_closed_to_them(
    tmp_path: Path, remote: fs.FileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    own = tmp_path / f"distspectral-{os.getuid()}"
    own.mkdir(mode=0o755)
    own.chmod(0o777)
    NodeCache(None, 2500).path(remote, "1", "1")
    assert own.stat().st_mode & 0o777 == 0o700
    made = tmp_path / "made"
    NodeCache(str(made), 2500).path(remote, "1", "1")
    assert made.stat().st_mode & 0o777 == 0o700


def test_a_link_in_a_shared_directory_is_not_written_through(remote: fs.FileSystem, tmp_path: Path) -> None:
    shared, victim = tmp_path / "shared", tmp_path / "victim"
    cache = NodeCache(str(shared), 2500)
    copy = Path(cache.path(remote, "1", "1"))
    victim.write_bytes(b"mine")
    for suffix in (".tmp", ".state"):
        copy.unlink(missing_ok=True)
        copy.with_suffix(suffix).unlink(missing_ok=True)
        copy.with_suffix(suffix).symlink_to(victim)
        if suffix == ".tmp":
            assert Path(cache.path(remote, "1", "1")).read_bytes() == b"\x01" * 1000
        else:
            with pytest.raises(OutputNotWritableError, match=r"storage\.cache_dir"):
                cache.path(remote, "1", "1")
        assert victim.read_bytes() == b"mine"


def test_another_users_directory_is_refused(
    tmp_path: Path, remote: fs.FileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    own = tmp_path / f"distspectral-{os.getuid()}"
    (tmp_path / "elsewhere").mkdir()
    own.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutputNotWritableError, match=rf"{own}: is not a directory of the user.*storage\.cache_dir"):
        NodeCache(None, 2500).path(remote, "1", "1")
    if os.getuid() == 0:
        own.unlink()
        own.mkdir()
        os.chown(own, 12345, -1)
        with pytest.raises(OutputNotWritableError, match=r"storage\.cache_dir"):
            NodeCache(None, 2500).path(remote, "1", "1")


def test_six_processes_fetch_each_file_once(tmp_path: Path, s3: S3Server) -> None:
    filesystem, place = resolve(s3.uri("six"))
    for name in "0123":
        with filesystem.open_output_stream(f"{place}/{name}") as stream:
            stream.write(os.urandom(1 << 20))
    before = len(s3.log)
    spawn = multiprocessing.get_context("spawn")
    arguments = (NodeCache(str(tmp_path), 1 << 30), s3.uri("six"), "0123", spawn.Barrier(6))
    processes = [spawn.Process(target=fetch_all, args=arguments) for _ in range(6)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 6
    fetched = [request.key for request in s3.log[before:] if request.method == "GET"]
    assert sorted(fetched) == [f"six/{name}" for name in "0123"]


def test_an_object_written_anew_in_the_same_second_is_another_file(tmp_path: Path, s3: S3Server) -> None:
    filesystem, place = resolve(s3.uri("anew"))
    cache = NodeCache(str(tmp_path), 1 << 30)
    for content in (b"one", b"two", b"six"):
        with filesystem.open_output_stream(place) as stream:
            stream.write(content)
        assert Path(cache.path(filesystem, place, "anew")).read_bytes() == content


def test_a_large_file_is_fetched_in_pieces(tmp_path: Path, s3: S3Server) -> None:
    filesystem, place = resolve(s3.uri("large"))
    content = os.urandom(2 * CHUNK_BYTES + 1)
    with filesystem.open_output_stream(place) as stream:
        stream.write(content)
    before = len(s3.log)
    assert Path(NodeCache(str(tmp_path), 1 << 30).path(filesystem, place, "large")).read_bytes() == content
    pieces = [request for request in s3.log[before:] if request.method == "GET"]
    assert sorted(request.n_bytes for request in pieces) == [1, CHUNK_BYTES, CHUNK_BYTES]


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

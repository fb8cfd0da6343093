"""The log of a training's windows: appended to, mended, followed."""

from __future__ import annotations

import json
import resource
import shutil
from pathlib import Path
from typing import Any

import pytest
from pyarrow import fs

from distspectral.errors import OutputNotWritableError
from distspectral.storage.artifact.directory import Artifact
from distspectral.training.run_log import METRICS_FILE, RunLog, WindowReader


def records(*steps: int) -> list[dict[str, Any]]:
    return [{"step": step, "loss": 1 / step} for step in steps]


def written(artifact: Artifact) -> list[int]:
    return [json.loads(line)["step"] for line in artifact.read_bytes(METRICS_FILE).splitlines()]


@pytest.fixture
def local(tmp_path: Path) -> Artifact:
    return Artifact(str(tmp_path))


@pytest.fixture
def remote(tmp_path: Path) -> Artifact:
    """An artifact on a filesystem that is not local for all one can tell: an object store, which cannot append."""
    artifact = Artifact(str(tmp_path / "bucket"))
    (tmp_path / "bucket").mkdir()
    artifact.filesystem = fs.SubTreeFileSystem("/", fs.LocalFileSystem())
    return artifact


def test_a_window_is_appended_and_nothing_is_written_again(local: Artifact) -> None:
    log, path = RunLog(local, []), Path(local.file_path(METRICS_FILE))
    inode = path.stat().st_ino
    for record in records(10, 20):
        log.window(record)
    assert written(local) == [10, 20]
    assert path.stat().st_ino == inode, "the file was replaced"


def test_a_restart_drops_later_windows_and_half_a_line(local: Artifact) -> None:
    log = RunLog(local, [])
    for record in records(10, 20, 30):
        log.window(record)
    with open(local.file_path(METRICS_FILE), "ab") as stream:
        stream.write(b'{"step": 40, "lo')
    RunLog(local, records(10, 20)).window(records(30)[0])
    assert written(local) == [10, 20, 30]


def test_an_object_store_gets_the_file_now_and_then_and_before_each_checkpoint(remote: Artifact) -> None:
    log = RunLog(remote, [], replace_s=3600)
    for record in records(10, 20):
        log.window(record)
    assert written(remote) == []
    log.write()
    assert written(remote) == [10, 20]
    prompt = RunLog(remote, records(10), replace_s=0)
    prompt.window(records(30)[0])
    assert written(remote) == [10, 30]


def fill(log: RunLog, disk: Path) -> None:
    """Fill the disk but for a page, then log until it is full."""
    (disk / "filler").write_bytes(bytes(shutil.disk_usage(disk).free - 4096))
    for step in range(20, 2000):
        log.window({"step": step, "loss": 0.5})


def test_a_full_disk_says_so_and_costs_no_window_written_before(disk: Path) -> None:
    artifact = Artifact(str(disk))
    log = RunLog(artifact, records(10))
    with pytest.raises(OutputNotWritableError, match="no space left"):
        fill(log, disk)
    whole = artifact.read_bytes(METRICS_FILE).splitlines(keepends=True)
    assert [json.loads(line)["step"] for line in whole if line.endswith(b"\n")][:2] == [10, 20]


def test_half_a_line_is_mended_at_once(local: Artifact) -> None:
    log, path = RunLog(local, records(10)), Path(local.file_path(METRICS_FILE))
    size, (soft, hard) = path.stat().st_size, resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 5, hard))  # cuts the line, as a disk that fills up
    try:
        with pytest.raises(OSError, match="File too large"):
            log.window(records(20)[0])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    log.write()
    assert written(local) == [10, 20]


def test_a_reader_returns_each_window_once_whatever_restarts(local: Artifact) -> None:
    reader = WindowReader(local)
    assert reader.new() == []
    log = RunLog(local, records(10))
    assert reader.new() == records(10), "windows before a restart are told, once"
    log.window(records(20)[0])
    log.window(records(30)[0])
    assert reader.new() == records(20, 30)
    assert reader.new() == []
    RunLog(local, [{"step": 10, "loss": 0.123456789012}])  # a restart from the checkpoint at 10
    assert reader.new() == []
    log = RunLog(local, [{"step": 10, "loss": 0.123456789012}])
    for record in records(20, 30, 40, 50):
        log.window(record)
    assert reader.new() == records(40, 50)


def test_a_reader_reads_only_what_is_new(local: Artifact) -> None:
    log, reader = RunLog(local, []), WindowReader(local)
    log.window(records(10)[0])
    assert reader.new() == records(10)
    content = local.read_bytes(METRICS_FILE)
    Path(local.file_path(METRICS_FILE)).write_bytes(b"?" * (len(content) - 1) + b"\n" + b'{"step": 20}\n')
    assert reader.new() == [{"step": 20}], "what was read before is not parsed again"


def test_a_reader_waits_for_the_end_of_a_line(local: Artifact) -> None:
    reader, path = WindowReader(local), Path(local.file_path(METRICS_FILE))
    path.write_bytes(b'{"step": 10}\n{"st')
    assert reader.new() == [{"step": 10}]
    path.write_bytes(b'{"step": 10}\n{"step": 20}\n')
    assert reader.new() == [{"step": 20}]

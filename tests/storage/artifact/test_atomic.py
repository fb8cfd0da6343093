"""Files that are whole or absent."""

from __future__ import annotations

from pathlib import Path
from typing import IO

import pytest
from pyarrow import fs

from distspectral.storage.artifact import atomic
from tests.storage.counting import CountingHandler


@pytest.mark.parametrize("remote", [False, True])
def test_an_error_while_writing_leaves_what_stood_there(tmp_path: Path, remote: bool) -> None:
    filesystem = fs.PyFileSystem(CountingHandler()) if remote else fs.LocalFileSystem()
    path = tmp_path / "a.bin"
    with atomic.open_whole(filesystem, str(path)) as stream:
        stream.write(b"whole")
    writing = atomic.open_whole(filesystem, str(path))
    writing.__enter__().write(b"half")
    assert not writing.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert path.read_bytes() == b"whole"
    assert [one.name for one in tmp_path.iterdir()] == ["a.bin"]


def test_an_interrupted_upload_leaves_nothing_rather_than_half_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filesystem, path = fs.PyFileSystem(CountingHandler()), tmp_path / "a.bin"

    def half(source: IO[bytes], target: IO[bytes], _: int) -> None:
        target.write(source.read(3))
        raise KeyboardInterrupt

    monkeypatch.setattr(atomic.shutil, "copyfileobj", half)
    with pytest.raises(KeyboardInterrupt), atomic.open_whole(filesystem, str(path)) as stream:
        stream.write(b"whole")
    assert not path.exists()

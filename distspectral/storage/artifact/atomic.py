"""Files that are whole or absent, on any pyarrow filesystem."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from pyarrow import fs

TEMPORARY = f".*.{'[0-9a-f]' * 32}.tmp"
"""What files are called that are not whole yet, as a glob."""


@contextlib.contextmanager
def open_whole(filesystem: fs.FileSystem, path: str) -> Iterator[IO[bytes]]:
    """Yield a binary file to write and read, which stands at its place when the block has ended, and only then.

    A local file is written under a temporary name, fsynced and renamed; for an object store it is assembled in a local
    temporary file and sent by one upload. An error in the block leaves what stood there before, one in the upload
    nothing.

    Args:
        filesystem: of the file.
        path: as the filesystem names it.
    """
    if not isinstance(filesystem, fs.LocalFileSystem):
        with tempfile.TemporaryFile() as stream:
            yield stream
            stream.seek(0)
            try:
                with filesystem.open_output_stream(path) as target:
                    shutil.copyfileobj(stream, target, 1 << 24)
            except BaseException:  # closed, an object store takes what came so far for the whole
                with contextlib.suppress(OSError):
                    filesystem.delete_file(path)
                raise
        return
    final = Path(path)
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary = final.with_name(f".{final.name}.{uuid.uuid4().hex}.tmp")
    try:
        with open(temporary, "w+b") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, final)
    finally:
        temporary.unlink(missing_ok=True)

"""Node-local copies of remote files that must be memory-mapped: the least recently used go when the limit is reached.

Processes of one node share a directory. A copy is made under a temporary name and renamed, so two that fetch the same
file do the work twice and harm nothing; a copy that another process deletes stays readable while it is mapped.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import os
import time
import uuid
import zlib
from pathlib import Path

from pyarrow import fs
from pydantic import ByteSize, Field

from distspectral.errors import DamagedArtifactError, OutputNotWritableError
from distspectral.frozen import FrozenModel

CHUNK_BYTES = 1 << 24
STALE_S = 3600.0
"""An unfinished copy so old was left by a process that was killed."""


@dataclasses.dataclass(frozen=True)
class NodeCache:
    """Where copies live on each node, and how much they may take. Picklable; holds nothing open.

    Attributes:
        directory: the same path on every node, on a local disk.
        max_bytes: of all copies together; one file may exceed it alone.
    """

    directory: str
    max_bytes: int

    def path(self, filesystem: fs.FileSystem, remote: str, uri: str, known: tuple[int, str] | None = None) -> str:
        """Return the local path of an unspoilt copy of a remote file, fetched if it is not there.

        A file that was written anew is another file: its size and version (ETag) are in the copy's name, and so is
        the checksum of what was fetched, by which the copy is checked when a process first opens it.

        Args:
            filesystem: where the file is.
            remote: its path there.
            uri: as messages name it.
            known: its size, and what differs when it is written anew; None asks the filesystem.

        Raises:
            FileNotFoundError: there is no such file.
            DamagedArtifactError: fewer or more bytes arrived than the file has.
            OutputNotWritableError: the node's disk is full, or the directory cannot be written.
        """
        size, version = known or _version(filesystem, remote)
        identity = f"{filesystem.type_name}:{remote}:{size}:{version}"
        key = hashlib.sha256(identity.encode()).hexdigest()[:32]
        folder = Path(self.directory)
        for copy in sorted(folder.glob(f"{key}.*.arrow")):
            if _is_unspoilt(copy, size):
                with contextlib.suppress(FileNotFoundError):
                    os.utime(copy)  # the time of use, by which the oldest are chosen
                    return str(copy)
            copy.unlink(missing_ok=True)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._make_room(folder, size)
            return self._fetch(filesystem, remote, uri, folder / key, size)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.ENOTDIR, errno.EEXIST, errno.EROFS, errno.ENOSPC, errno.EDQUOT):
                raise
            raise OutputNotWritableError(
                f"{self.directory}: cannot be written ({error}); set storage.cache_dir to a local disk of every node, "
                "with room for storage.cache_bytes",
                parameters=["storage.cache_dir", "storage.cache_bytes"],
            ) from error

    def _fetch(self, filesystem: fs.FileSystem, remote: str, uri: str, target: Path, size: int) -> str:
        temporary = target.with_name(f"{target.name}.{uuid.uuid4().hex}.tmp")
        checksum, n_bytes = 0, 0
        try:
            with filesystem.open_input_stream(remote) as source, open(temporary, "wb") as copy:
                while chunk := source.read(CHUNK_BYTES):
                    copy.write(chunk)
                    checksum, n_bytes = zlib.crc32(chunk, checksum), n_bytes + len(chunk)
            if n_bytes != size:
                raise DamagedArtifactError(f"{uri}: {n_bytes} bytes arrived, the file has {size}; run again")
            final = target.with_name(f"{target.name}.{checksum:08x}.arrow")
            os.replace(temporary, final)
            _VERIFIED.add((str(final), os.stat(final).st_ino))
            return str(final)
        finally:
            temporary.unlink(missing_ok=True)

    def _make_room(self, folder: Path, n_bytes: int) -> None:
        """Delete the copies that were used longest ago until ``n_bytes`` more fit."""
        copies = []
        for path in folder.iterdir():
            with contextlib.suppress(FileNotFoundError):
                state = path.stat()
                if path.suffix == ".tmp" and time.time() - state.st_mtime > STALE_S:
                    path.unlink(missing_ok=True)
                elif path.suffix == ".arrow":
                    copies.append((state.st_mtime_ns, state.st_size, path))
        taken = sum(size for _, size, _ in copies)
        for _, size, path in sorted(copies):
            if taken + n_bytes <= self.max_bytes:
                return
            path.unlink(missing_ok=True)
            taken -= size


class StorageConfig(FrozenModel):
    """Node-local copies of vectors and graph where the root is an object store (YAML section ``storage``).

    A local or shared root is mapped where it is, without copies. Nothing here changes a result.
    """

    cache_dir: str = Field("/tmp/distspectral-cache", description="on a local disk of every node; shared by all runs")
    cache_bytes: ByteSize = Field(
        ByteSize(100 << 30),
        description="of all copies on a node; those used longest ago go first; 0 keeps none and reads into memory",
    )

    @property
    def node_cache(self) -> NodeCache | None:
        """The cache, None where none is wanted."""
        return NodeCache(self.cache_dir, int(self.cache_bytes)) if self.cache_bytes else None


def _version(filesystem: fs.FileSystem, remote: str) -> tuple[int, str]:
    """Return a remote file's size, and what differs as soon as it is written anew, in the same second too."""
    with filesystem.open_input_file(remote) as file:
        size = int(file.size())
        version = (file.metadata() or {}).get(b"ETag")
    return size, repr(version or filesystem.get_file_info(remote).mtime_ns)


_VERIFIED: set[tuple[str, int]] = set()
"""Copies, by path and inode, whose checksum this process has found right."""


def _is_unspoilt(copy: Path, size: int) -> bool:
    """Whether the copy has the size and the checksum that its name says; read once per process."""
    try:
        state = copy.stat()
        if (str(copy), state.st_ino) in _VERIFIED:
            return state.st_size == size
        checksum = 0
        with open(copy, "rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                checksum = zlib.crc32(chunk, checksum)
    except FileNotFoundError:
        return False
    if state.st_size != size or copy.name.split(".")[1] != f"{checksum:08x}":
        return False
    _VERIFIED.add((str(copy), state.st_ino))
    return True

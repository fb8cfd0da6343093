"""Node-local copies of remote files that must be memory-mapped: the least recently used go when the limit is reached.

Processes of one node share a directory. Beside each copy lies a small file: whoever fetches holds its lock, which the
system frees when the process dies, while the others wait for the copy; and it says when the copy was last found whole.
A copy that another process deletes stays readable while it is mapped.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import functools
import hashlib
import os
import stat
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

from pyarrow import fs
from pydantic import ByteSize, Field, field_validator

from distspectral.errors import DamagedArtifactError, OutputNotWritableError
from distspectral.frozen import FrozenModel

CHUNK_BYTES = 1 << 23
"""Of a file asked for at a time, and summed up at a time."""
FETCH_THREADS = 8
"""Requests under way at once."""
STALE_S = 3600.0
"""An unfinished copy that has not grown for so long was left by a process that was killed."""
ROOM_SHARE = 0.05
"""Of the limit, made free beyond what is needed: the directory is not listed for every file once it is full."""
REFUSALS = (
    *(errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST, errno.ELOOP),
    *(errno.EROFS, errno.ENOSPC, errno.EDQUOT),
)
"""What a disk, or its owner, says to whoever may not write there."""
ROOM = "taken"
"""Beside the copies: how many bytes they have been granted since they were last counted."""


@dataclasses.dataclass(frozen=True)
class NodeCache:
    """Where copies live on each node, and how much they may take. Picklable; holds nothing open.

    Attributes:
        directory: the same path on every node, on a local disk; None: below each node's own temporary directory.
        max_bytes: of all copies together; one file may exceed it alone.
    """

    directory: str | None
    max_bytes: int

    def path(self, filesystem: fs.FileSystem, remote: str, uri: str, known: tuple[int, str] | None = None) -> str:
        """Return the local path of a whole copy of a remote file; fetched, by one process of the node, if need be.

        A file that was written anew is another file: its size and version (ETag) are in the copy's name. A copy that
        has changed since it was last found whole, or lay there when the node started, is compared with its checksum.

        Args:
            filesystem: where the file is.
            remote: its path there.
            uri: as messages name it.
            known: its size, and what differs when it is written anew; None asks the filesystem.

        Raises:
            FileNotFoundError: there is no such file.
            DamagedArtifactError: fewer or more bytes arrived than the file has.
            OutputNotWritableError: the node's disk is full, or the directory cannot be written or is another user's.
        """
        size, version = known or remote_version(filesystem, remote)
        with self._writable():
            copy = self._place(filesystem, remote, size, version)
            while not (_is_whole(copy) and _touched(copy)):  # another process may delete it in between
                self._make(filesystem, remote, uri, copy, size)
            return str(copy)

    def standing(self, filesystem: fs.FileSystem, remote: str, known: tuple[int, str]) -> str | None:
        """Return what :meth:`path` would, None if that had to fetch or sum up the copy first.

        Raises:
            OutputNotWritableError: see :meth:`path`.
        """
        with self._writable():
            copy = self._place(filesystem, remote, *known)
            return str(copy) if _is_whole(copy) and _touched(copy) else None

    def _place(self, filesystem: fs.FileSystem, remote: str, size: int, version: str) -> Path:
        identity = f"{filesystem.type_name}:{remote}:{size}:{version}"
        return self._folder() / f"{hashlib.sha256(identity.encode()).hexdigest()[:32]}.arrow"

    def _folder(self) -> Path:
        """Return the directory, made if need be.

        Raises:
            OutputNotWritableError: there is none of this user's in the temporary directory, where anyone may write.
        """
        if self.directory is not None:
            folder = Path(self.directory)
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # who shares the copies of a bucket makes it
            return folder
        own = Path(tempfile.gettempdir()) / f"distspectral-{os.getuid()}"
        own.mkdir(mode=0o700, exist_ok=True)
        state = own.lstat()  # of a link itself, wherever it leads
        if not stat.S_ISDIR(state.st_mode) or state.st_uid != os.getuid():
            raise OutputNotWritableError(
                f"{own}: is not a directory of the user {os.getuid()}, so others could change the copies in it; delete "
                "it, or set storage.cache_dir to a local disk of every node",
                parameters=["storage.cache_dir"],
            )
        own.chmod(0o700)  # made by hand, perhaps
        folder = own / "cache"
        folder.mkdir(exist_ok=True)
        return folder

    @contextlib.contextmanager
    def _writable(self) -> Iterator[None]:
        """Turn what the disk refuses into an error that names the settings."""
        try:
            yield
        except OSError as error:
            if error.errno not in REFUSALS:
                raise
            raise OutputNotWritableError(
                f"{self.directory or tempfile.gettempdir()}: cannot be written ({error}); set storage.cache_dir to a "
                "local disk of every node, with room for storage.cache_bytes",
                parameters=["storage.cache_dir", "storage.cache_bytes"],
            ) from error

    def _make(self, filesystem: fs.FileSystem, remote: str, uri: str, copy: Path, size: int) -> None:
        """Verify the copy or fetch it, unless another process did while this one waited for it."""
        with _locked(copy.with_suffix(".state")) as state:
            if _is_whole(copy):
                return
            found = _summed_up(copy)
            if found is None or found.rpartition(" ")[2] != state.read().rpartition(" ")[2]:
                self._make_room(copy.parent, size)
                found = _fetch(filesystem, remote, uri, copy, size)
            _rewrite(state, found)

    def _make_room(self, folder: Path, n_bytes: int) -> None:
        """Grant ``n_bytes``; where they are too many, first delete the copies that were used longest ago."""
        with _locked(folder / ROOM) as book:
            taken = int(book.read() or self.max_bytes)  # unknown: they are counted
            if taken + n_bytes > self.max_bytes:
                taken = _swept(folder, self.max_bytes - n_bytes, int(ROOM_SHARE * self.max_bytes))
            _rewrite(book, str(taken + n_bytes))


class StorageConfig(FrozenModel):
    """Node-local copies of vectors and graph where the root is an object store (YAML section ``storage``).

    A local or shared root is mapped where it is, without copies. Nothing here changes a result.
    """

    cache_dir: str | None = Field(
        None,
        description="on a local disk of every node, shared by all runs; null: distspectral-UID/cache below the node's "
        "own temporary directory (TMPDIR), closed to other users",
    )
    cache_bytes: ByteSize = Field(
        ByteSize(100 << 30),
        description="of all copies on a node; those used longest ago go first; 0 keeps none and reads into memory",
    )

    @field_validator("cache_dir")
    @classmethod
    def _is_a_path(cls, cache_dir: str | None) -> str | None:
        if cache_dir is not None and "://" in cache_dir:
            raise ValueError("is a URI; copies are mapped into memory, so name a directory of a local disk")
        return cache_dir

    @property
    def node_cache(self) -> NodeCache | None:
        """The cache, None where none is wanted."""
        return NodeCache(self.cache_dir, int(self.cache_bytes)) if self.cache_bytes else None


def remote_version(filesystem: fs.FileSystem, remote: str) -> tuple[int, str]:
    """Return a remote file's size, and what differs as soon as it is written anew, in the same second too."""
    with filesystem.open_input_file(remote) as file:
        size = int(file.size())
        version = (file.metadata() or {}).get("ETag")
    return size, repr(version or filesystem.get_file_info(remote).mtime_ns)


# ---- one copy ------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[IO[str]]:
    """Yield a small file, made if need be, that no other process or thread has at the same time."""
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644), "r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file


def _rewrite(file: IO[str], text: str) -> None:
    file.seek(0)
    file.truncate()
    file.write(text)
    file.flush()


def _stamp(copy: Path) -> str:
    """Return what changes when the copy does, or when the node starts anew.

    Raises:
        FileNotFoundError: there is no copy.
    """
    state = copy.stat()
    return f"{_boot()} {state.st_ino} {state.st_mtime_ns} {state.st_size}"


@functools.cache
def _boot() -> str:
    """Return what differs each time that the node starts, where the system is Linux."""
    path = Path("/proc/sys/kernel/random/boot_id")
    return path.read_text().strip() if path.exists() else "-"


def _is_whole(copy: Path) -> bool:
    """Whether the copy is still the one that was last found whole."""
    try:
        return copy.with_suffix(".state").read_text().rpartition(" ")[0] == _stamp(copy)
    except FileNotFoundError:
        return False


def _touched(copy: Path) -> bool:
    """Note the time of use, by which the oldest are chosen; whether the copy is still there."""
    with contextlib.suppress(FileNotFoundError):
        os.utime(copy.with_suffix(".state"))
    return copy.exists()


def _in_chunks(size: int, chunk: Callable[[int, int], bytes]) -> tuple[int, str]:
    """Return how many bytes ``chunk(n_bytes, offset)`` gave of a file, some chunks at a time, and their checksum."""

    def summed(offset: int) -> tuple[int, int]:
        content = chunk(min(CHUNK_BYTES, size - offset), offset)
        return len(content), zlib.crc32(content)

    with ThreadPoolExecutor(FETCH_THREADS) as pool:
        parts = list(pool.map(summed, range(0, size, CHUNK_BYTES)))
    checksums = b"".join(checksum.to_bytes(4, "little") for _, checksum in parts)
    return sum(n_bytes for n_bytes, _ in parts), f"{zlib.crc32(checksums):08x}"


def _summed_up(copy: Path) -> str | None:
    """Return the copy's stamp and checksum, as its state file holds them; None where there is no copy."""
    with contextlib.suppress(FileNotFoundError), open(copy, "rb") as file:
        stamp, n_bytes = _stamp(copy), os.fstat(file.fileno()).st_size
        checksum = _in_chunks(n_bytes, lambda size, offset: os.pread(file.fileno(), size, offset))[1]
        return f"{stamp} {checksum}"
    return None


def _fetch(filesystem: fs.FileSystem, remote: str, uri: str, copy: Path, size: int) -> str:
    """Write the copy, whole or not at all; return its stamp and checksum."""
    temporary = copy.with_suffix(".tmp")
    try:
        temporary.unlink(missing_ok=True)  # and made anew: a link that another user laid there is not followed
        with filesystem.open_input_file(remote) as source, open(temporary, "xb") as target:
            target.truncate(size)  # counted in full while it is filled

            def chunk(n_bytes: int, offset: int) -> bytes:
                content: bytes = source.read_at(n_bytes, offset)
                with open(temporary, "r+b") as part:
                    part.seek(offset)
                    part.write(content)
                return content

            n_bytes = source.size()
            if n_bytes == size:
                n_bytes, checksum = _in_chunks(size, chunk)
        if n_bytes != size:
            raise DamagedArtifactError(f"{uri}: {n_bytes} bytes arrived, the file has {size}; run again")
        stamp = _stamp(temporary)
        os.replace(temporary, copy)
        return f"{stamp} {checksum}"
    finally:
        temporary.unlink(missing_ok=True)


# ---- all copies ----------------------------------------------------------------------------------------------


def _swept(folder: Path, limit: int, margin: int) -> int:
    """Delete what was left over and, beyond ``limit`` bytes, the oldest copies and ``margin`` more; return the rest."""
    copies, taken, now = [], 0, time.time()
    for path in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):
            state = path.stat()
            if path.suffix == ".arrow":
                taken += state.st_size
                copies.append((path.with_suffix(".state").stat().st_mtime_ns, state.st_size, path))
            elif now - state.st_mtime > STALE_S and not path.with_suffix(".arrow").exists() and path.name != ROOM:
                path.unlink()  # half a copy, or what was known of one that went before
            elif path.suffix == ".tmp":
                taken += state.st_size
    if taken <= limit:
        return taken
    for _, size, path in sorted(copies):
        if taken <= limit - margin:
            break
        path.unlink(missing_ok=True)
        taken -= size
    return taken

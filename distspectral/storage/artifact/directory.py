"""A directory that one stage writes: its files, read, mapped and written, and the manifest that says they are whole.

Works on any pyarrow filesystem. :class:`~distspectral.storage.artifact.output.Output` opens and finishes one.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import posixpath
from collections.abc import Callable, Sequence
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.ipc
from numpy.typing import NDArray
from pyarrow import fs
from pydantic_core import to_jsonable_python

from distspectral.errors import (
    DamagedArtifactError,
    FingerprintMismatchError,
    MissingArtifactError,
    OutputNotWritableError,
)
from distspectral.storage.artifact.atomic import open_whole
from distspectral.storage.artifact.cache import NodeCache, remote_version
from distspectral.storage.artifact.manifest import FORMAT_VERSION, Manifest
from distspectral.storage.filesystems import join, resolve

MANIFEST = ".manifest.json"
"""Whatever is no row has a name that begins with a dot, so that readers of tables can be given the folder: pyarrow,
pandas, Spark and Hugging Face's datasets pass such names by, and the last of them no others."""

ASKED_SINGLY = 8
"""Files of a remote folder whose sizes are asked for one by one; of more, the folder is listed once."""


class Artifact:
    """One artifact directory, local or remote. Cheap to make, picklable, holds no open files.

    Args:
        uri: local path or a URI that ``pyarrow.fs`` understands.
        cache: where each node keeps copies of remote files that are to be memory-mapped; None keeps none.
    """

    def __init__(self, uri: str, cache: NodeCache | None = None) -> None:
        self.uri, self.cache = uri, cache
        self.filesystem, self.path = resolve(uri)

    def __repr__(self) -> str:
        return f"Artifact({self.uri!r})"

    @property
    def is_local(self) -> bool:
        """Whether files can be memory-mapped by path."""
        return isinstance(self.filesystem, fs.LocalFileSystem)

    def child(self, name: str) -> Artifact:
        """Return the artifact in the subdirectory ``name``."""
        return Artifact(join(self.uri, name), self.cache)

    def file_path(self, name: str) -> str:
        """Return the path of a file as the filesystem names it."""
        return f"{self.path.rstrip('/')}/{name}"

    # ---- reading -------------------------------------------------------------------------------------------

    def entries(self, folder: str = "") -> list[fs.FileInfo]:
        """Return what stands in the directory, or in a folder of it; none where there is no such folder."""
        place = self.file_path(folder) if folder else self.path
        return list(self.filesystem.get_file_info(fs.FileSelector(place, allow_not_found=True)))

    def exists(self) -> bool:
        """Whether the directory does."""
        return bool(self.filesystem.get_file_info(self.path).type != fs.FileType.NotFound)

    def has(self, name: str) -> bool:
        """Whether the file ``name`` exists."""
        return bool(self.filesystem.get_file_info(self.file_path(name)).type == fs.FileType.File)

    def read_bytes(self, name: str) -> bytes:
        """Return a whole file.

        Raises:
            MissingArtifactError: there is no such file.
        """
        try:
            with self.filesystem.open_input_stream(self.file_path(name)) as stream:
                return bytes(stream.read())
        except FileNotFoundError as error:
            raise MissingArtifactError(f"{self.uri}: has no file {name}; run the stage that writes it") from error

    def read_json(self, name: str) -> Any:
        """Return the parsed content of a JSON file."""
        return json.loads(self.read_bytes(name))

    def manifest(self) -> Manifest:
        """Return the manifest.

        Raises:
            MissingArtifactError: the stage never finished here.
            DamagedArtifactError: the manifest cannot be parsed, lacks something, or is of another version's format.
        """
        place = f"{self.uri}/{MANIFEST}"
        try:
            found = Manifest.model_validate_json(self.read_bytes(MANIFEST))
        except MissingArtifactError as error:
            raise MissingArtifactError(
                f"{self.uri}: holds no finished artifact (no {MANIFEST}); run the stage that writes it"
            ) from error
        except ValueError as error:
            raise DamagedArtifactError(f"{place}: cannot be parsed; delete the directory and run again") from error
        if found.format_version != FORMAT_VERSION:
            raise DamagedArtifactError(
                f"{place}: is of format {found.format_version}, this version of distspectral reads {FORMAT_VERSION}; "
                "delete the directory and run again"
            )
        if missing := Manifest.model_fields.keys() - found.model_fields_set:
            raise DamagedArtifactError(f"{place}: lacks {min(missing)}; delete the directory and run again")
        return found

    def delete(self) -> None:
        """Remove the directory and all that it holds, if it is there."""
        with contextlib.suppress(FileNotFoundError):
            self.filesystem.delete_dir(self.path)

    def is_current(self, fingerprint: str) -> bool:
        """Whether a finished, undamaged artifact with this fingerprint stands here, every listed file with its size."""
        try:
            self.require(fingerprint)
        except (MissingArtifactError, FingerprintMismatchError, DamagedArtifactError):
            return False
        return True

    def require(self, fingerprint: str) -> Manifest:
        """Return the manifest of a finished, undamaged artifact with this fingerprint.

        Raises:
            MissingArtifactError: the stage never finished here.
            FingerprintMismatchError: it was made from other inputs or another config.
            DamagedArtifactError: a listed file is missing or has another size.
        """
        manifest = self.manifest()
        if manifest.fingerprint != fingerprint:
            raise FingerprintMismatchError(
                f"{self.uri}: made from other inputs or another config (fingerprint {manifest.fingerprint}, "
                f"expected {fingerprint}); run the stage `{manifest.stage}` again"
            )
        if damaged := self._damaged(manifest):
            raise DamagedArtifactError(
                f"{self.uri}/{damaged}: missing or of another size than {MANIFEST} says; "
                f"delete {self.uri} and run the stage `{manifest.stage}` again"
            )
        return manifest

    def _damaged(self, manifest: Manifest) -> str | None:
        """Return the name of the first listed file that is missing or has another size."""
        found = self.sizes(list(manifest.n_bytes))
        return next((name for name, size in manifest.n_bytes.items() if found[name] != size), None)

    def sizes(self, names: Sequence[str]) -> dict[str, int | None]:
        """Return the files' sizes in bytes by name, None where there is no such file; many are listed by folder."""
        if self.is_local or len(names) <= ASKED_SINGLY:
            infos = self.filesystem.get_file_info([self.file_path(name) for name in names])
            return {name: info.size for name, info in zip(names, infos, strict=True)}
        folders = {posixpath.dirname(name) for name in names}
        found = {posixpath.join(one, entry.base_name): entry.size for one in folders for entry in self.entries(one)}
        return {name: found.get(name) for name in names}

    def version(self, name: str) -> str | None:
        """Return what a remote file has no more once it is written anew; None of a local one, which is not copied."""
        return None if self.is_local else remote_version(self.filesystem, self.file_path(name))[1]

    def mappable(self, name: str, known: tuple[int, str] | None = None) -> str | None:
        """Return a local path by which the file can be memory-mapped: its own, or that of the node's copy.

        None where the file is remote and no copies are kept.

        Args:
            name: of the file.
            known: its size and version, by :attr:`Shard.known`; None asks for them.

        Raises:
            DamagedArtifactError, OutputNotWritableError: see :meth:`NodeCache.path`.
        """
        path = self.file_path(name)
        if self.is_local:
            return path
        if self.cache is None:
            return None
        return self.cache.path(self.filesystem, path, join(self.uri, name), known)

    def mapped(self, name: str, known: tuple[int, str] | None) -> str | None:
        """Return :meth:`mappable` if that costs nothing: no request, and no pass over the file."""
        path = self.file_path(name)
        if self.is_local:
            return path
        if self.cache is None or known is None:
            return None
        return self.cache.standing(self.filesystem, path, known)

    def open_mapped(self, name: str) -> pa.NativeFile:
        """Open for random access; memory-mapped where the file or a copy of it is local; see :meth:`mappable`."""
        path = self.mappable(name)
        return self.filesystem.open_input_file(self.file_path(name)) if path is None else pa.memory_map(path, "r")

    def read_table(self, name: str) -> pa.Table:
        """Return an Arrow IPC file as a table; memory-mapped, without copying, where it is local or has a copy."""
        return pyarrow.ipc.open_file(self.open_mapped(name)).read_all()

    # ---- writing -------------------------------------------------------------------------------------------

    def write_file(self, name: str, write: Callable[[IO[bytes]], object]) -> int:
        """Write one file, whole or not at all, and return its size in bytes.

        Args:
            name: file name relative to the directory.
            write: called with an open binary file; its exceptions pass through and leave no file behind.

        Raises:
            OutputNotWritableError: the disk is full.
        """
        try:
            with open_whole(self.filesystem, self.file_path(name)) as stream:
                write(stream)
                return stream.tell()
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise OutputNotWritableError(
                    f"{self.uri}/{name}: no space left; free some or choose another place, then run again to go on"
                ) from error
            raise

    def write_bytes(self, name: str, content: bytes | memoryview) -> int:
        """Write one file of this content; see :meth:`write_file`."""
        return self.write_file(name, lambda stream: stream.write(content))

    def write_json(self, name: str, value: Any) -> None:
        """Write a value as an indented JSON file; NaN and infinity, which JSON lacks, are null."""
        plain = to_jsonable_python(value, inf_nan_mode="null", fallback=str)
        self.write_bytes(name, json.dumps(plain, indent=2).encode())

    def load_array(self, name: str) -> NDArray[Any]:
        """Return the array of a ``.npy`` file, mapped where the file, or a copy on the node, can be.

        Raises:
            MissingArtifactError: there is no such file.
        """
        path = self.mappable(name)
        if path is None:
            found: NDArray[Any] = np.load(io.BytesIO(self.read_bytes(name)))
        else:
            found = np.load(path, mmap_mode="r")
        return found

    def delete_file(self, name: str) -> None:
        """Delete a file, if it is there."""
        with contextlib.suppress(FileNotFoundError):
            self.filesystem.delete_file(self.file_path(name))

"""A directory that one stage writes: each file whole or absent, the manifest last.

Works on any pyarrow filesystem. A shard's *receipt* (a small JSON file written after it) marks it as done, so a stage
that died continues with the shards it lacks.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.ipc
from pyarrow import fs

from distspectral.errors import (
    DamagedArtifactError,
    FingerprintMismatchError,
    MissingArtifactError,
    OutputNotWritableError,
)
from distspectral.storage.artifact.atomic import TEMPORARY, open_whole
from distspectral.storage.artifact.cache import NodeCache
from distspectral.storage.artifact.manifest import Manifest, Shard
from distspectral.storage.filesystems import join, resolve

MANIFEST = "manifest.json"
BUILDING = "building.json"
RECEIPTS = "receipts"


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
            DamagedArtifactError: the manifest cannot be parsed.
        """
        if not self.has(MANIFEST):
            raise MissingArtifactError(
                f"{self.uri}: holds no finished artifact (no {MANIFEST}); run the stage that writes it"
            )
        try:
            return Manifest.model_validate_json(self.read_bytes(MANIFEST))
        except ValueError as error:
            raise DamagedArtifactError(
                f"{self.uri}/{MANIFEST}: cannot be parsed; delete the directory and run again"
            ) from error

    def is_current(self, fingerprint: str) -> bool:
        """Whether a finished artifact with this fingerprint stands here, every listed file with its size."""
        if not self.has(MANIFEST):
            return False
        manifest = self.manifest()
        return manifest.fingerprint == fingerprint and not self._damaged(manifest)

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
                f"expected {fingerprint}); run the stage `{manifest.stage}` again, or `distspectral run`"
            )
        if damaged := self._damaged(manifest):
            raise DamagedArtifactError(
                f"{self.uri}/{damaged}: missing or of another size than {MANIFEST} says; "
                f"delete {self.uri} and run the stage `{manifest.stage}` again"
            )
        return manifest

    def _damaged(self, manifest: Manifest) -> str | None:
        """Return the name of the first listed file that is missing or has another size."""
        sizes = {shard.name: shard.n_bytes for shard in manifest.shards} | manifest.files
        infos = self.filesystem.get_file_info([self.file_path(name) for name in sizes])
        for (name, size), info in zip(sizes.items(), infos, strict=True):
            if info.type != fs.FileType.File or info.size != size:
                return name
        return None

    def mappable(self, name: str, manifest: Manifest | None = None) -> str | None:
        """Return a local path by which the file can be memory-mapped: its own, or that of the node's copy.

        None where the file is remote and no copies are kept.

        Args:
            name: of the file.
            manifest: of this finished artifact, if at hand: its digest then tells versions apart, without a request.

        Raises:
            DamagedArtifactError, OutputNotWritableError: see :meth:`NodeCache.path`.
        """
        path = self.file_path(name)
        if self.is_local:
            return path
        if self.cache is None:
            return None
        shards = () if manifest is None else manifest.shards
        known = next(((shard.n_bytes, manifest.digest) for shard in shards if shard.name == name and manifest), None)
        return self.cache.path(self.filesystem, path, join(self.uri, name), known)

    def open_mapped(self, name: str, manifest: Manifest | None = None) -> pa.NativeFile:
        """Open for random access; memory-mapped where the file or a copy of it is local; see :meth:`mappable`."""
        path = self.mappable(name, manifest)
        return self.filesystem.open_input_file(self.file_path(name)) if path is None else pa.memory_map(path, "r")

    def read_table(self, name: str, manifest: Manifest | None = None) -> pa.Table:
        """Return an Arrow IPC file as a table; memory-mapped, without copying, where it is local or has a copy."""
        return pyarrow.ipc.open_file(self.open_mapped(name, manifest)).read_all()

    # ---- writing -------------------------------------------------------------------------------------------

    def begin(self, stage: str, fingerprint: str) -> dict[str, Shard]:
        """Open the directory for writing and return the shards already done by an interrupted run.

        What another fingerprint left here is removed first, and only if it is an artifact of ours.

        Raises:
            OutputNotWritableError: the directory cannot be made or written, or holds foreign files.
        """
        try:
            info = self.filesystem.get_file_info(self.path)
            if info.type == fs.FileType.File:
                raise OutputNotWritableError(f"{self.uri}: is a file; choose another output directory")
            if info.type == fs.FileType.Directory:
                self._sweep()
                if not self._resumes(stage, fingerprint):
                    self._clear()
            self.filesystem.create_dir(self.path, recursive=True)
            self.write_json(BUILDING, {"stage": stage, "fingerprint": fingerprint})
        except (PermissionError, NotADirectoryError, FileExistsError) as error:
            raise OutputNotWritableError(f"{self.uri}: cannot be written ({error}); choose another root") from error
        except OSError as error:
            raise OutputNotWritableError(f"{self.uri}: cannot be written ({error})") from error
        return self.receipts()

    def _resumes(self, stage: str, fingerprint: str) -> bool:
        if self.has(MANIFEST) or not self.has(BUILDING):
            return False
        with contextlib.suppress(ValueError):
            return bool(self.read_json(BUILDING) == {"stage": stage, "fingerprint": fingerprint})
        return False

    def _clear(self) -> None:
        entries = self.filesystem.get_file_info(fs.FileSelector(self.path))
        names = {entry.base_name for entry in entries}
        if names and not names & {MANIFEST, BUILDING}:
            raise OutputNotWritableError(
                f"{self.uri}: holds files that distspectral did not write ({min(names)}, ...); choose another root"
            )
        self.write_json(BUILDING, {})  # the directory stays recognisable as ours if this is interrupted
        if MANIFEST in names:  # first, so that a crash in here never leaves a manifest without its shards
            self.filesystem.delete_file(self.file_path(MANIFEST))
        for entry in entries:
            if entry.type == fs.FileType.Directory:
                self.filesystem.delete_dir(entry.path)
            elif entry.base_name not in (MANIFEST, BUILDING):
                self.filesystem.delete_file(entry.path)

    def _sweep(self) -> None:
        """Remove the temporary files of a writer that was killed."""
        if self.is_local:
            for left_over in Path(self.path).rglob(TEMPORARY):
                left_over.unlink(missing_ok=True)

    def receipts(self) -> dict[str, Shard]:
        """Return the shards done so far, by name, of an artifact that is being written."""
        selector = fs.FileSelector(self.file_path(RECEIPTS), allow_not_found=True)
        done: dict[str, Shard] = {}
        for info in self.filesystem.get_file_info(selector):
            if info.base_name.endswith(".json") and not info.base_name.startswith("."):
                try:
                    shard = Shard.model_validate_json(self.read_bytes(f"{RECEIPTS}/{info.base_name}"))
                except (ValueError, MissingArtifactError):
                    continue  # a damaged receipt is none, its shard is written again; or another process has finished
                if self.filesystem.get_file_info(self.file_path(shard.name)).size == shard.n_bytes:
                    done[shard.name] = shard
        return done

    def write_file(self, name: str, write: Callable[[IO[bytes]], None]) -> int:
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
                size = stream.tell()
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise OutputNotWritableError(
                    f"{self.uri}/{name}: no space left; free some or choose another root, then run again to go on"
                ) from error
            raise
        return size

    def write_json(self, name: str, value: Any) -> None:
        """Write a value as an indented JSON file."""
        text = json.dumps(value, indent=2, default=str)
        self.write_file(name, lambda stream: void(stream.write(text.encode())))

    def write_shard(
        self, name: str, n_rows: int, write: Callable[[IO[bytes]], None], details: dict[str, Any] | None = None
    ) -> Shard:
        """Write one shard and then its receipt; return the receipt.

        Args:
            name: file name relative to the directory.
            n_rows: rows the shard holds.
            write: called with an open binary file.
            details: JSON-serialisable facts that the stage's last step needs of each shard; ``write`` may still
                fill them in.
        """
        n_bytes = self.write_file(name, write)
        return self.write_receipt(Shard(name=name, n_rows=n_rows, n_bytes=n_bytes, details=details or {}))

    def write_receipt(self, shard: Shard) -> Shard:
        """Mark a shard that stands in the directory as done; return it."""
        if not self.is_local or not os.path.isdir(self.file_path(RECEIPTS)):
            self.filesystem.create_dir(self.file_path(RECEIPTS), recursive=True)
        self.write_json(f"{RECEIPTS}/{shard.name}.json", shard.model_dump())
        return shard

    def delete_file(self, name: str) -> None:
        """Delete a file, if it is there."""
        with contextlib.suppress(FileNotFoundError):
            self.filesystem.delete_file(self.file_path(name))

    def commit(self, manifest: Manifest) -> Manifest:
        """Write the manifest, which declares the artifact finished, and tidy up what led to it."""
        self.write_json(MANIFEST, manifest.model_dump())
        with contextlib.suppress(OSError):
            self.filesystem.delete_dir_contents(self.file_path(RECEIPTS), missing_dir_ok=True)
            self.filesystem.delete_dir(self.file_path(RECEIPTS))
        with contextlib.suppress(OSError):
            self.filesystem.delete_file(self.file_path(BUILDING))
        return manifest


def void(_: object) -> None:
    """Discard a value where a callable must return None."""

"""A local directory that counts as remote and counts what is asked of it."""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import fs

from distspectral.storage.artifact.directory import Artifact


class CountedFile:
    """A file for random access whose reads are counted; pyarrow seeks, then reads, under a lock of its own."""

    def __init__(self, path: str, count: Any) -> None:
        self._file, self._count = fs.LocalFileSystem().open_input_file(path), count

    def read(self, n_bytes: int = -1) -> bytes:
        content = self._file.read(n_bytes)
        self._count(read=1, bytes=len(content))
        return content

    def read_buffer(self, n_bytes: int) -> pa.Buffer:
        self._count(read=1, bytes=n_bytes)
        return self._file.read_buffer(n_bytes)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


class CountingHandler(fs.FileSystemHandler):
    """Hands everything on to the local filesystem."""

    def __init__(self) -> None:
        self.counter: Counter[str] = Counter()
        self._local, self._lock = fs.LocalFileSystem(), threading.Lock()

    def count(self, **more: int) -> None:
        with self._lock:
            self.counter.update(more)

    def get_type_name(self) -> str:
        return "counting"

    def normalize_path(self, path: str) -> str:
        return path

    def get_file_info(self, paths: Any) -> Any:
        return self._local.get_file_info(paths)

    def get_file_info_selector(self, selector: Any) -> Any:
        return self._local.get_file_info(selector)

    def create_dir(self, path: str, recursive: bool) -> None:
        self._local.create_dir(path, recursive=recursive)

    def delete_dir(self, path: str) -> None:
        self._local.delete_dir(path)

    def delete_dir_contents(self, path: str, missing_dir_ok: bool = False) -> None:
        self._local.delete_dir_contents(path, missing_dir_ok=missing_dir_ok)

    def delete_root_dir_contents(self) -> None:
        raise NotImplementedError

    def delete_file(self, path: str) -> None:
        self._local.delete_file(path)

    def move(self, src: str, dest: str) -> None:
        self._local.move(src, dest)

    def copy_file(self, src: str, dest: str) -> None:
        self._local.copy_file(src, dest)

    def open_input_stream(self, path: str) -> Any:
        return self._local.open_input_stream(path)

    def open_input_file(self, path: str) -> Any:
        self.count(opened=1)
        return pa.PythonFile(CountedFile(path, self.count), mode="r")

    def open_output_stream(self, path: str, metadata: Any) -> Any:
        Path(path).parent.mkdir(parents=True, exist_ok=True)  # object stores have no directories
        return self._local.open_output_stream(path)

    def open_append_stream(self, path: str, metadata: Any) -> Any:
        raise NotImplementedError


def counting(artifact: Artifact) -> tuple[Artifact, Counter[str]]:
    """Return the artifact as if it were remote, and what is counted: files ``opened``, times ``read``, ``bytes``."""
    handler = CountingHandler()
    artifact.filesystem = fs.PyFileSystem(handler)
    return artifact, handler.counter

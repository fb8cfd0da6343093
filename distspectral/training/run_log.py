"""The windows of a training on disk: ``metrics.jsonl`` for programs, TensorBoard for people.

A local ``metrics.jsonl`` grows by a line per window. Object stores offer no appending, so there the file is replaced,
now and then. With every checkpoint it is replaced whole anywhere, so that the two agree.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from typing import Any

from pyarrow import fs

from distspectral.storage.artifact.directory import Artifact

OnWindow = Callable[[dict[str, Any]], None]
METRICS_FILE = "metrics.jsonl"

REPLACE_S = 5.0
"""Least seconds between two versions of the file in an object store, checkpoints aside."""


def read_windows(training: Artifact) -> list[dict[str, Any]]:
    """Return the windows of a ``training`` artifact, none where it has no log."""
    lines = training.read_bytes(METRICS_FILE).decode().splitlines() if training.has(METRICS_FILE) else []
    return [json.loads(line) for line in lines]


class RunLog:
    """Writes a run's windows; made on the one rank that owns the log.

    Args:
        artifact: the ``training`` artifact.
        history: windows until the checkpoint that was restored; later ones, and half a line, are dropped from the file.
        on_window: hears of each window too.
        replace_s: see ``REPLACE_S``.
    """

    def __init__(
        self,
        artifact: Artifact,
        history: list[dict[str, Any]],
        on_window: OnWindow | None = None,
        replace_s: float = REPLACE_S,
    ) -> None:
        from distspectral.training.board import Board

        self.artifact, self.history, self.on_window, self.replace_s = artifact, list(history), on_window, replace_s
        self.write()
        # TensorBoard's event files are appended to, too
        first_step = history[-1]["step"] + 1 if history else 0
        self.board = Board(artifact.file_path("tensorboard"), first_step) if artifact.is_local else None

    def window(self, record: dict[str, Any]) -> None:
        """Write one window's metrics.

        Raises:
            OutputNotWritableError: the disk is full.
        """
        self.history.append(record)
        if self.artifact.is_local:
            self._append(_line(record))
        elif time.monotonic() - self._written_at >= self.replace_s:
            self.write()
        if self.board is not None:
            self.board.add(record["step"], curves(record))
        if self.on_window is not None:
            self.on_window(record)

    def write(self) -> None:
        """Replace the file by all windows so far; belongs before a checkpoint that holds them.

        Raises:
            OutputNotWritableError: the disk is full.
        """
        self.artifact.write_bytes(METRICS_FILE, b"".join(_line(record) for record in self.history))
        self._written_at = time.monotonic()

    def _append(self, line: bytes) -> None:
        with (
            contextlib.suppress(OSError),
            open(self.artifact.file_path(METRICS_FILE), "ab", buffering=0) as stream,
        ):
            if stream.write(line) == len(line):
                return
        self.write()  # mends half a line, or says what is wrong with the disk


class WindowReader:
    """Reads, of a log that another process writes, only what is new.

    Args:
        artifact: the ``training`` artifact.
    """

    def __init__(self, artifact: Artifact) -> None:
        self.artifact = artifact
        self._offset = 0
        self._last_step = 0

    def new(self) -> list[dict[str, Any]]:
        """Return the windows that were not returned before; steps taken again after a restart are not new."""
        path = self.artifact.file_path(METRICS_FILE)
        info = self.artifact.filesystem.get_file_info(path)
        if info.type != fs.FileType.File or info.size == self._offset:
            return []
        with self.artifact.filesystem.open_input_file(path) as stream:
            if not self._goes_on(stream):
                self._offset = 0
            stream.seek(self._offset)
            content = bytes(stream.read())
        whole = content[: content.rfind(b"\n") + 1]  # the last line may be in the making
        self._offset += len(whole)
        records = [json.loads(line) for line in whole.splitlines()]
        found = [record for record in records if record["step"] > self._last_step]
        self._last_step = max([self._last_step, *(record["step"] for record in found)])
        return found

    def _goes_on(self, stream: Any) -> bool:
        """Whether a line ends where reading ended; not so where the file was replaced by one that begins otherwise."""
        if not 0 < self._offset <= stream.size():
            return False
        stream.seek(self._offset - 1)
        return bool(stream.read(1) == b"\n")


def curves(record: dict[str, Any]) -> dict[str, float]:
    """Return a window's numbers by the names of TensorBoard's curves."""
    named: dict[str, float] = {}
    for name, value in record.items():
        if isinstance(value, list):
            named |= {f"{name.removesuffix('_values')}/{index:03d}": one for index, one in enumerate(value)}
        elif name not in ("step", "seconds", "core_seconds"):
            named[f"train/{name}"] = value
    return named


def _line(record: dict[str, Any]) -> bytes:
    return json.dumps(record).encode() + b"\n"

"""A number for every row: tasks write it part by part, one task joins the parts, and all others map the whole.

Numbers of all rows are four or eight bytes each: too many for the process that starts the tasks, few enough for a file
that every node has once.

Shape letters: N rows, B rows of a part.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from distspectral.mapping import Mapper
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.artifact.manifest import Shard
from distspectral.storage.artifact.output import Output
from distspectral.storage.artifact.receipts import write_missing
from distspectral.storage.rows.shard_rows import ShardRows, write_columns

FOLDER = ".by-row"
VALUE = "value"

Change = Callable[[Artifact, Sequence[Shard]], Callable[[NDArray[Any]], NDArray[Any]]]
"""Of the parts: returns what is done to each part as it is joined."""


class ByRow:
    """Numbers of rows in a folder of a stage's artifact; what an interrupted run wrote is not written again.

    Args:
        output: of the stage, begun.

    Attributes:
        artifact: the folder.
    """

    def __init__(self, output: Output) -> None:
        self.artifact = output.artifact.child(FOLDER)
        self._done = Output(self.artifact, FOLDER, output.fingerprint, {}, {}).begin()

    def run(
        self, task: Callable[[Any], Shard], items: Sequence[tuple[Any, ...]], mapper: Mapper, description: str
    ) -> list[Shard]:
        """Return the shards that a task writes of each item, in order; the first of an item is its shard's name."""
        return write_missing(self._done, mapper, task, items, description)

    def join(
        self,
        name: str,
        parts: Sequence[Shard],
        mapper: Mapper,
        description: str,
        to: Artifact | None = None,
        change: Change | None = None,
    ) -> None:
        """Let a task join parts, in row order, to the array (N,) of a file that :meth:`Artifact.load_array` maps.

        Args:
            name: of the file.
            parts: written by :func:`write_part`.
            mapper: runs the task.
            description: of it.
            to: where the file goes; by default beside the parts.
            change: see :data:`Change`.
        """
        to = to or self.artifact
        if not to.has(name):
            task = functools.partial(_join, self.artifact, to, name, change)
            list(mapper(task, [list(parts)], description))


def write_part(artifact: Artifact, name: str, values: NDArray[Any], details: dict[str, Any] | None = None) -> Shard:
    """Write the numbers (B,) of consecutive rows, at least one."""
    return write_columns(artifact, name, {VALUE: values[:, None]}, details)


def read_parts(artifact: Artifact, parts: Sequence[Shard]) -> Iterator[NDArray[Any]]:
    """Yield the numbers (B,) of part after part."""
    for part in parts:
        yield ShardRows(artifact, [part], [VALUE]).block(0, part.n_rows)[0][:, 0]


def _join(artifact: Artifact, to: Artifact, name: str, change: Change | None, parts: list[Shard]) -> None:
    changed = change(artifact, parts) if change else np.ascontiguousarray
    (dtype, _), *_ = ShardRows(artifact, parts[:1], [VALUE]).types

    def write(stream: IO[bytes]) -> None:
        n_rows = sum(part.n_rows for part in parts)
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (n_rows,)}
        np.lib.format.write_array_header_1_0(stream, header)
        for values in read_parts(artifact, parts):
            stream.write(np.ascontiguousarray(changed(values), dtype).data)

    to.write_file(name, write)


def load_rows(artifact: Artifact, name: str, rows: NDArray[np.int64]) -> NDArray[Any]:
    """Return the numbers (n,) of rows (n,) in a joined file."""
    return np.asarray(artifact.load_array(name)[rows])

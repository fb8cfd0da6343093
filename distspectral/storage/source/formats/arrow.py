"""Arrow IPC, files and streams: a stream has no footer, so it is walked once for its header, and read as a whole."""

from __future__ import annotations

import dataclasses
import os
import struct
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.dataset
import pyarrow.ipc

from distspectral.storage.source.columns import Columns
from distspectral.storage.source.formats.format import ONE_THREAD, Header, Threads
from distspectral.storage.source.formats.tables import common_width, completed, inside, table_header, validated
from distspectral.storage.source.listing import ShardFile

FILE_MAGIC = b"ARROW1"
PREFIX = struct.Struct("<Ii")
"""Before a message: a marker, and the length of what describes it (Arrow Columnar Format, "Encapsulated message")."""
CONTINUATION = 0xFFFFFFFF
MAX_DESCRIPTION = 64 << 20
RECORD_BATCH = 3
"""Among the kinds of message, as Message.fbs counts them."""


def _ipc_is_file(stream: pa.NativeFile) -> bool:
    magic = stream.read(len(FILE_MAGIC))
    stream.seek(0)
    return bool(magic == FILE_MAGIC)


def _open_ipc(stream: pa.NativeFile, options: pa.ipc.IpcReadOptions) -> Any:
    opener = pa.ipc.open_file if _ipc_is_file(stream) else pa.ipc.open_stream
    return opener(stream, options=options)


def _walk_ipc(file: ShardFile, names: list[str], parts: range | None = None) -> Iterator[pa.RecordBatch]:
    """Yield the file's own record batches, or those asked for, with the named columns only."""
    with file.open() as stream:
        schema = _open_ipc(stream, pa.ipc.IpcReadOptions()).schema
        stream.seek(0)
        options = pa.ipc.IpcReadOptions(included_fields=[schema.get_field_index(name) for name in names])
        reader = _open_ipc(stream, options)
        if isinstance(reader, pa.ipc.RecordBatchFileReader):
            there = range(reader.num_record_batches)
            yield from (validated(reader.get_batch(index)) for index in (there if parts is None else parts))
        else:
            yield from map(validated, reader)


def header(file: ShardFile, columns: Columns, lenient: bool) -> Header:
    """Return rows and width; see :class:`~distspectral.storage.source.formats.format.Format`."""
    with file.open() as stream:
        reader = _open_ipc(stream, pa.ipc.IpcReadOptions())
        n_batches = reader.num_record_batches if isinstance(reader, pa.ipc.RecordBatchFileReader) else None
        if n_batches == 0:  # its columns' types are often null
            return Header(0, 0)
        dim, types = table_header(reader.schema, columns, file)
    if n_batches is None:
        vectors = inside(columns._replace(id=None, label=None), reader.schema, file)
        parts = [sum(batch.num_rows for batch in _walk_ipc(file, vectors[:1]))]
    elif not file.is_local or len(parts := _batch_rows(file.path)) != n_batches:
        # asked once for each batch, which cannot be told apart then
        parts = [pyarrow.dataset.IpcFileFormat().make_fragment(file.path, file.filesystem).count_rows()]
    if dim is None:
        dim = common_width(_walk_ipc(file, [columns.vector]), columns)
    return Header(sum(parts), dim, **types, all_null=lenient and not dim, parts=parts)


def _batch_rows(path: str) -> list[int]:
    """Return the rows of each record batch of a local file; bodies are passed over, where Arrow's reader reads them.

    Raises:
        ValueError: the file is damaged.
    """
    rows: list[int] = []
    place = 8  # behind the magic, padded; a few writers pad it to 64 bytes, and then none is found
    with open(path, "rb", buffering=0) as stream:
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        while True:
            stream.seek(place)
            marker, n_bytes = PREFIX.unpack(stream.read(PREFIX.size).ljust(PREFIX.size, b"\0"))
            if marker != CONTINUATION or not 0 < n_bytes <= MAX_DESCRIPTION:
                return rows
            try:
                message = _Table.root(stream.read(n_bytes))
                kind, n_body = message.number("B", 1), message.number("q", 3)
                n_rows = message.table(2).number("q", 0) if kind == RECORD_BATCH else None
            except struct.error as error:
                raise ValueError(f"the message at byte {place} is damaged: {error}") from error
            if n_body < 0 or (n_rows or 0) < 0:
                raise ValueError(f"the message at byte {place} claims a negative size")
            if n_rows is not None:
                rows.append(n_rows)
            place += PREFIX.size + n_bytes + n_body


@dataclasses.dataclass(frozen=True)
class _Table:
    """A table of a flatbuffer: where it begins, a signed distance back to the places of its fields."""

    data: bytes
    start: int

    @classmethod
    def root(cls, data: bytes) -> _Table:
        return cls(data, struct.unpack_from("<I", data)[0])

    def _place(self, field: int) -> int | None:
        places = self.start - struct.unpack_from("<i", self.data, self.start)[0]
        (n_bytes,) = struct.unpack_from("<H", self.data, places)
        (offset,) = struct.unpack_from("<H", self.data, places + 4 + 2 * field) if 4 + 2 * field < n_bytes else (0,)
        return self.start + offset if offset else None

    def number(self, kind: str, field: int) -> int:
        place = self._place(field)
        return 0 if place is None else int(struct.unpack_from(f"<{kind}", self.data, place)[0])

    def table(self, field: int) -> _Table:
        place = self._place(field) or 0
        return _Table(self.data, place + struct.unpack_from("<I", self.data, place)[0])


def batches(
    file: ShardFile, columns: Columns, rows: int, parts: range | None = None, threads: Threads = ONE_THREAD
) -> Iterator[pa.RecordBatch]:
    """Yield the file's record batches, cut where they hold more rows; most are mapped, so one thread will do."""
    del threads
    names = columns.present
    if file.partitions or columns.features:
        with file.open() as stream:
            names = inside(columns, _open_ipc(stream, pa.ipc.IpcReadOptions()).schema, file)
    for batch in _walk_ipc(file, names, parts):
        for start in range(0, batch.num_rows, rows):
            yield completed(batch.slice(start, rows), columns, file)

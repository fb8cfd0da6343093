"""Arrow IPC, files and streams: a stream has no footer, so it is walked once for its header, and read as a whole."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.dataset
import pyarrow.ipc

from distspectral.storage.source.columns import Columns
from distspectral.storage.source.formats.format import ONE_THREAD, Header, Threads
from distspectral.storage.source.formats.tables import table_header, validated, width
from distspectral.storage.source.listing import ShardFile

FILE_MAGIC = b"ARROW1"


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
        is_file = _ipc_is_file(stream)
        dim, types = table_header(_open_ipc(stream, pa.ipc.IpcReadOptions()).schema, columns, file)
    parts = _batch_rows(file) if is_file and file.is_local else None
    if is_file:
        fragment = pyarrow.dataset.IpcFileFormat().make_fragment(file.path, file.filesystem)
        n_rows = fragment.count_rows()
    else:
        n_rows = sum(batch.num_rows for batch in _walk_ipc(file, [columns.vector]))
    if parts is None or sum(parts) != n_rows:
        parts = [n_rows]  # a stream, or a remote file, whose batches would be fetched to find their sizes
    if dim is None:
        dim = width(_walk_ipc(file, [columns.vector]), columns, lenient)
    return Header(n_rows, dim, **types, all_null=lenient and not dim, parts=parts)


def _batch_rows(file: ShardFile) -> list[int]:
    """Return the rows of each record batch of a mapped file; only what stands before their bodies is touched."""
    nothing = pa.schema([])  # of no columns a batch has its length, and nothing is decompressed
    with file.open() as stream:
        stream.seek(8)  # the magic is padded to as many bytes; in the rare file where it is to more, none is found
        messages = pa.ipc.MessageReader.open_stream(stream)
        return [
            pa.ipc.read_record_batch(message, nothing).num_rows
            for message in messages
            if message.type == "record batch"
        ]


def batches(
    file: ShardFile, columns: Columns, rows: int, parts: range | None = None, threads: Threads = ONE_THREAD
) -> Iterator[pa.RecordBatch]:
    """Yield the file's record batches, cut where they hold more rows; most are mapped, so one thread will do."""
    del threads
    for batch in _walk_ipc(file, columns.present, parts):
        for start in range(0, batch.num_rows, rows):
            yield batch.slice(start, rows)

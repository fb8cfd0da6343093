"""Arrow IPC, files and streams: a stream has no footer, so it is walked once for its header."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.dataset
import pyarrow.ipc

from distspectral.storage.source.columns import Columns
from distspectral.storage.source.formats.format import Header
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


def _walk_ipc(file: ShardFile, names: list[str]) -> Iterator[pa.RecordBatch]:
    """Yield the file's own record batches with the named columns only."""
    with file.open() as stream:
        schema = _open_ipc(stream, pa.ipc.IpcReadOptions()).schema
        stream.seek(0)
        options = pa.ipc.IpcReadOptions(included_fields=[schema.get_field_index(name) for name in names])
        reader = _open_ipc(stream, options)
        if isinstance(reader, pa.ipc.RecordBatchFileReader):
            yield from (validated(reader.get_batch(index)) for index in range(reader.num_record_batches))
        else:
            yield from map(validated, reader)


def header(file: ShardFile, columns: Columns, lenient: bool) -> Header:
    """Return rows and width; see :class:`~distspectral.storage.source.formats.format.Format`."""
    with file.open() as stream:
        is_file = _ipc_is_file(stream)
        dim, types = table_header(_open_ipc(stream, pa.ipc.IpcReadOptions()).schema, columns, file)
    if is_file:
        fragment = pyarrow.dataset.IpcFileFormat().make_fragment(file.path, file.filesystem)
        n_rows = fragment.count_rows()
    else:
        n_rows = sum(batch.num_rows for batch in _walk_ipc(file, [columns.vector]))
    if dim is None:
        dim = width(_walk_ipc(file, [columns.vector]), columns, lenient)
    return Header(n_rows, dim, **types, all_null=lenient and not dim)


def batches(file: ShardFile, columns: Columns, rows: int) -> Iterator[pa.RecordBatch]:
    """Yield the file's record batches, cut where they hold more rows."""
    for batch in _walk_ipc(file, columns.present):
        for start in range(0, batch.num_rows, rows):
            yield batch.slice(start, rows)

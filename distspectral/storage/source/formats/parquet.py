"""Parquet: rows and width from the footer, one row group at a time, or several at once and in order."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import pyarrow as pa
import pyarrow.parquet as pq

from distspectral.errors import CorruptShardError
from distspectral.storage.rows.frame import Frame
from distspectral.storage.source.columns import Columns, to_matrix
from distspectral.storage.source.formats.format import ONE_THREAD, Header, Threads
from distspectral.storage.source.formats.tables import common_width, completed, inside, table_header, validated
from distspectral.storage.source.limits import refuse_absurd_groups
from distspectral.storage.source.listing import ShardFile

GROUP_BYTES = 64 << 20
"""Largest row group that is mapped, or fetched, as a whole unless the caller says otherwise."""

BUFFER_BYTES = 8 << 20
"""Of each column of a larger row group held at a time: 56 MiB instead of 409 for 1,500,000 x 64 in one group."""

LOOK_ROWS = 1 << 14
"""First rows whose commonest width is that of a List column; the footer tells whether more rows agree."""


def _open_parquet(file: ShardFile, buffered: bool = False, metadata: pq.FileMetaData | None = None) -> pq.ParquetFile:
    # pages without a checksum, which is most of them, are not verified; footers are bounded by Arrow's thrift limits
    return pq.ParquetFile(
        pa.OSFile(file.path) if buffered and file.is_local else file.open(),
        metadata=metadata,
        pre_buffer=not (buffered or file.is_local),
        buffer_size=BUFFER_BYTES if buffered else 0,
        page_checksum_verification=True,
    )


def header(file: ShardFile, columns: Columns, lenient: bool) -> Header:
    """Return rows and width; see :class:`~distspectral.storage.source.formats.format.Format`."""
    vectors_only = Columns(columns.vector, None, None)
    with _open_parquet(file) as parquet:
        refuse_absurd_groups(file, parquet.metadata)
        n_rows = parquet.metadata.num_rows
        if not n_rows:  # its columns' types are often null
            return Header(0, 0)
        dim, types = table_header(parquet.schema_arrow, columns, file)
        parts = [parquet.metadata.row_group(index).num_rows for index in range(parquet.num_row_groups)]
        if dim is None and not lenient:
            dim = _parquet_list_width(parquet, file, columns)
    if dim is None:
        dim = common_width(batches(file, vectors_only, LOOK_ROWS), vectors_only)
    return Header(n_rows, dim or 0, **types, all_null=lenient and not dim, parts=parts)


def _parquet_list_width(parquet: pq.ParquetFile, file: ShardFile, columns: Columns) -> int:
    """Return D of a List column from the footer's value counts; where they betray a ragged row, find it and raise."""
    metadata = parquet.metadata
    leaf = next(
        index
        for index in range(metadata.num_columns)
        if f"{metadata.schema.column(index).path}.".startswith(f"{columns.vector}.")
    )
    n_rows = metadata.num_rows
    n_values = sum(metadata.row_group(group).column(leaf).num_values for group in range(metadata.num_row_groups))
    vectors_only = Columns(columns.vector, None, None)
    if n_rows > LOOK_ROWS and n_values % n_rows == 0:
        return int(n_values // n_rows)
    width = common_width(batches(file, vectors_only, LOOK_ROWS), vectors_only)
    if n_values == n_rows * width:
        return width
    first_row = 0
    for batch in batches(file, vectors_only, LOOK_ROWS):
        vectors = batch.column(columns.vector)
        to_matrix(vectors, width, Frame(), name=columns.vector, uri=file.uri, first_row=first_row)
        first_row += batch.num_rows
    raise CorruptShardError(f"{file.uri}: the footer counts {n_values} values in {n_rows} rows; write it again")


def batches(
    file: ShardFile,
    columns: Columns,
    rows: int,
    parts: range | None = None,
    threads: Threads = ONE_THREAD,
    *,
    group_bytes: int = GROUP_BYTES,
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of one row group after the other.

    One thread streams a row group, through a buffer where one has more than ``group_bytes``. Several decode as many
    row groups at once as may be held; where that is one, it is streamed.
    """
    with _open_parquet(file) as parquet:
        names = inside(columns, parquet.schema_arrow, file)
        metadata = parquet.metadata
    for batch in _file_batches(file, names, rows, parts, threads, group_bytes, metadata):
        yield completed(batch, columns, file)


def _file_batches(
    file: ShardFile,
    names: list[str],
    rows: int,
    parts: range | None,
    threads: Threads,
    group_bytes: int,
    metadata: pq.FileMetaData,
) -> Iterator[pa.RecordBatch]:
    """Yield the named columns of the rows; see :func:`batches`."""
    groups = range(metadata.num_row_groups)
    if parts is not None:  # fewer than when the file was opened are too few rows, which the caller counts
        groups = groups[parts.start : parts.stop]
    largest = max((metadata.row_group(group).num_rows for group in groups), default=0)
    n_readers = min(threads.number, len(groups), threads.held_rows // max(largest, 1))
    if n_readers > 1:
        with contextlib.ExitStack() as files:
            readers = [files.enter_context(_open_parquet(file, metadata=metadata)) for _ in range(n_readers)]
            yield from _decoded_ahead(readers, groups, names, rows)
        return
    buffered = max((metadata.row_group(group).total_byte_size for group in groups), default=0) > group_bytes
    with _open_parquet(file, buffered, metadata) as parquet:
        for group in groups:  # one at a time: pre-buffering would hold all that are asked for
            yield from _decoded(parquet, group, names, rows)


def _decoded(parquet: pq.ParquetFile, group: int, names: list[str], rows: int) -> Iterator[pa.RecordBatch]:
    return map(validated, parquet.iter_batches(rows, row_groups=[group], columns=names, use_threads=False))


def _decoded_ahead(
    readers: Sequence[pq.ParquetFile], groups: range, names: list[str], rows: int
) -> Iterator[pa.RecordBatch]:
    """Yield the row groups' batches in order, decoded by as many threads as there are readers.

    Of 800,000 x 96 in row groups of 19 MiB, two threads decode 2.9 million rows a second and one 1.6; Arrow's own
    scanner with as many threads takes twice the core seconds for its copies.
    """
    ahead: deque[Future[list[pa.RecordBatch]]] = deque()
    with ThreadPoolExecutor(len(readers), "decode") as pool:
        for index, group in enumerate(groups):
            if len(ahead) == len(readers):  # the reader whose turn it is has finished what is now handed out
                yield from ahead.popleft().result()
            batches_of = _decoded(readers[index % len(readers)], group, names, rows)
            ahead.append(pool.submit(list, batches_of))  # lazy until then
        while ahead:
            yield from ahead.popleft().result()

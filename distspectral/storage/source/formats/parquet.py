"""Parquet: rows and width from the footer, one row group at a time."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from distspectral.errors import CorruptShardError
from distspectral.storage.source.columns import Columns, to_matrix
from distspectral.storage.source.formats.format import Header
from distspectral.storage.source.formats.tables import common_width, first_width, table_header, validated
from distspectral.storage.source.limits import refuse_absurd_groups
from distspectral.storage.source.listing import ShardFile

GROUP_BYTES = 64 << 20
"""Largest row group that is mapped, or fetched, as a whole unless the caller says otherwise."""

BUFFER_BYTES = 8 << 20
"""Of each column of a larger row group held at a time: 56 MiB instead of 409 for 1,500,000 x 64 in one group."""


def _open_parquet(file: ShardFile, buffered: bool = False) -> pq.ParquetFile:
    # pages without a checksum, which is most of them, are not verified; footers are bounded by Arrow's thrift limits
    return pq.ParquetFile(
        pa.OSFile(file.path) if buffered and file.is_local else file.open(),
        pre_buffer=not (buffered or file.is_local),
        buffer_size=BUFFER_BYTES if buffered else 0,
        page_checksum_verification=True,
    )


def header(file: ShardFile, columns: Columns, lenient: bool) -> Header:
    """Return rows and width; see :class:`~distspectral.storage.source.formats.format.Format`."""
    vectors_only = Columns(columns.vector, None, None)
    with _open_parquet(file) as parquet:
        dim, types = table_header(parquet.schema_arrow, columns, file)
        refuse_absurd_groups(file, parquet.metadata)
        n_rows = parquet.metadata.num_rows
        if dim is None and n_rows and not lenient:
            dim = _parquet_list_width(parquet, file, columns)
    if dim is None and n_rows:
        dim = common_width(batches(file, vectors_only, 1 << 14), vectors_only)
    return Header(n_rows, dim or 0, **types, all_null=lenient and not dim)


def _parquet_list_width(parquet: pq.ParquetFile, file: ShardFile, columns: Columns) -> int:
    """Return D of a List column from the footer's value counts; where they betray a ragged row, find it and raise."""
    metadata = parquet.metadata
    leaf = next(
        index
        for index in range(metadata.num_columns)
        if metadata.schema.column(index).path.split(".")[0] == columns.vector
    )
    n_values = sum(metadata.row_group(group).column(leaf).num_values for group in range(metadata.num_row_groups))
    if n_values % metadata.num_rows == 0:
        return int(n_values // metadata.num_rows)
    vectors_only = Columns(columns.vector, None, None)
    width = first_width(batches(file, vectors_only, 1), vectors_only)
    first_row = 0
    for batch in batches(file, vectors_only, 1 << 14):
        vectors = batch.column(columns.vector)
        to_matrix(vectors, width, 1.0, name=columns.vector, uri=file.uri, first_row=first_row)
        first_row += batch.num_rows
    raise CorruptShardError(
        f"{file.uri}: the footer counts {n_values} values in {metadata.num_rows} rows; write it again"
    )


def batches(file: ShardFile, columns: Columns, rows: int, group_bytes: int = GROUP_BYTES) -> Iterator[pa.RecordBatch]:
    """Yield the rows of one row group after the other; through a buffer where one has more than ``group_bytes``."""
    with _open_parquet(file) as parquet:
        groups = range(parquet.num_row_groups)
        buffered = max((parquet.metadata.row_group(i).total_byte_size for i in groups), default=0) > group_bytes
    with _open_parquet(file, buffered) as parquet:
        for group in groups:  # one at a time: pre-buffering would hold all that are asked for
            yield from map(validated, parquet.iter_batches(rows, row_groups=[group], columns=columns.present))

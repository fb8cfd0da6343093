"""The file formats a source shard can have: each tells its rows and width from its header, and streams batches.

Every format yields Arrow record batches, so that what follows has one path. Raw formats (.npy, .fbin) are
wrapped without copying.
"""

from __future__ import annotations

import contextlib
import dataclasses
import struct
from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset
import pyarrow.ipc
import pyarrow.parquet as pq

from distspectral.errors import CorruptShardError, DistSpectralError, UnknownColumnError, UnsupportedTypeError
from distspectral.storage.columns import (
    VALUE_TYPE_NAMES,
    Columns,
    ScalarType,
    require_columns,
    scalar_type,
    to_lists,
    to_matrix,
    vector_width,
)
from distspectral.storage.limits import refuse_absurd_groups
from distspectral.storage.listing import ShardFile

FormatName = Literal["parquet", "arrow", "npy", "fbin"]

FBIN_HEADER = struct.Struct("<II")
GROUP_BYTES = 64 << 20
"""Largest Parquet row group that is mapped, or fetched, as a whole."""
BUFFER_BYTES = 8 << 20
"""Of each column of a larger row group held at a time: 56 MiB instead of 409 for 1,500,000 x 64 in one group."""
IPC_FILE_MAGIC = b"ARROW1"


@dataclasses.dataclass(frozen=True)
class Header:
    """What a shard says of itself before its rows are read.

    Attributes:
        n_rows: number of rows.
        dim: width of the vectors.
        id_type: type of the id column, None where none was asked for.
        label_type: type of the label column, None where none was asked for.
        all_null: whether ``dim`` is 0 because every vector is null, told only by a lenient look.
    """

    n_rows: int
    dim: int
    id_type: ScalarType | None = None
    label_type: ScalarType | None = None
    all_null: bool = False


@dataclasses.dataclass(frozen=True)
class Format:
    """One file format.

    Attributes:
        extensions: of its files, lower case with the dot.
        header: reads the header or footer only (an Arrow stream has neither and is walked once); a lenient look, its
            last argument, takes the commonest width of a List column instead of refusing ragged rows.
        batches: yields record batches of the columns, at most so many rows each.
    """

    extensions: tuple[str, ...]
    header: Callable[[ShardFile, Columns, bool], Header]
    batches: Callable[[ShardFile, Columns, int], Iterator[pa.RecordBatch]]


@contextlib.contextmanager
def reading(file: ShardFile, format_name: str) -> Iterator[None]:
    """Turn what a parser raises into one error that names the shard.

    A remote file system's OSError passes through: a retry may cure it, where no retry cures a corrupt file.

    Raises:
        CorruptShardError: the shard cannot be parsed.
    """
    try:
        yield
    except DistSpectralError:
        raise  # some are ValueErrors too, and say what is wrong already
    except (OSError, ValueError, MemoryError, pa.ArrowException) as error:
        if isinstance(error, OSError) and not file.is_local:
            raise
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CorruptShardError(
            f"{file.uri}: cannot be read as {format_name} ({reason}); write the shard again or set data.format"
        ) from error


def _table_header(schema: pa.Schema, columns: Columns, file: ShardFile) -> tuple[int | None, dict[str, Any]]:
    require_columns(columns, schema, file.uri)
    types = {
        f"{role}_type": scalar_type(schema.field(name).type, name, file.uri)
        for role, name in (("id", columns.id), ("label", columns.label))
        if name is not None
    }
    return vector_width(schema.field(columns.vector).type, columns.vector, file.uri), types


def _first_width(batches: Iterator[pa.RecordBatch], columns: Columns) -> int:
    """Return the width of the first row; 0 where there is none or it is null."""
    first = next((batch.column(columns.vector)[0] for batch in batches if batch.num_rows), None)
    return 0 if first is None or not first.is_valid else len(first)


def _common_width(batches: Iterator[pa.RecordBatch], columns: Columns) -> int:
    """Return the commonest width among the first rows that are not null; 0 where all are."""
    for batch in batches:
        widths = pc.list_value_length(batch.column(columns.vector)).drop_null()
        if len(widths):
            return int(pc.mode(widths)[0]["mode"].as_py())
    return 0


def _width(batches: Iterator[pa.RecordBatch], columns: Columns, lenient: bool) -> int:
    return (_common_width if lenient else _first_width)(batches, columns)


def _validated(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return the batch, or raise where offsets, indices or strings point outside: nothing else looks at them.

    Raises:
        pa.ArrowInvalid: they do.
    """
    batch.validate(full=True)
    return batch


# ---- Parquet ---------------------------------------------------------------------------------------------------


def _open_parquet(file: ShardFile, buffered: bool = False) -> pq.ParquetFile:
    # pages without a checksum, which is most of them, are not verified; footers are bounded by Arrow's thrift limits
    return pq.ParquetFile(
        pa.OSFile(file.path) if buffered and file.is_local else file.open(),
        pre_buffer=not (buffered or file.is_local),
        buffer_size=BUFFER_BYTES if buffered else 0,
        page_checksum_verification=True,
    )


def _parquet_header(file: ShardFile, columns: Columns, lenient: bool) -> Header:
    vectors_only = Columns(columns.vector, None, None)
    with _open_parquet(file) as parquet:
        dim, types = _table_header(parquet.schema_arrow, columns, file)
        refuse_absurd_groups(file, parquet.metadata)
        n_rows = parquet.metadata.num_rows
        if dim is None and n_rows and not lenient:
            dim = _parquet_list_width(parquet, file, columns)
    if dim is None and n_rows:
        dim = _common_width(_parquet_batches(file, vectors_only, 1 << 14), vectors_only)
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
    width = _first_width(_parquet_batches(file, vectors_only, 1), vectors_only)
    first_row = 0
    for batch in _parquet_batches(file, vectors_only, 1 << 14):
        vectors = batch.column(columns.vector)
        to_matrix(vectors, width, 1.0, name=columns.vector, uri=file.uri, first_row=first_row)
        first_row += batch.num_rows
    raise CorruptShardError(
        f"{file.uri}: the footer counts {n_values} values in {metadata.num_rows} rows; write it again"
    )


def _parquet_batches(file: ShardFile, columns: Columns, rows: int) -> Iterator[pa.RecordBatch]:
    with _open_parquet(file) as parquet:
        groups = range(parquet.num_row_groups)
        buffered = max((parquet.metadata.row_group(i).total_byte_size for i in groups), default=0) > GROUP_BYTES
    with _open_parquet(file, buffered) as parquet:
        for group in groups:  # one at a time: pre-buffering would hold all that are asked for
            yield from map(_validated, parquet.iter_batches(rows, row_groups=[group], columns=columns.present))


# ---- Arrow IPC -------------------------------------------------------------------------------------------------


def _ipc_is_file(stream: pa.NativeFile) -> bool:
    magic = stream.read(len(IPC_FILE_MAGIC))
    stream.seek(0)
    return bool(magic == IPC_FILE_MAGIC)


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
            yield from (_validated(reader.get_batch(index)) for index in range(reader.num_record_batches))
        else:
            yield from map(_validated, reader)


def _ipc_header(file: ShardFile, columns: Columns, lenient: bool) -> Header:
    with file.open() as stream:
        is_file = _ipc_is_file(stream)
        dim, types = _table_header(_open_ipc(stream, pa.ipc.IpcReadOptions()).schema, columns, file)
    if is_file:
        fragment = pyarrow.dataset.IpcFileFormat().make_fragment(file.path, file.filesystem)
        n_rows = fragment.count_rows()
    else:
        n_rows = sum(batch.num_rows for batch in _walk_ipc(file, [columns.vector]))
    if dim is None:
        dim = _width(_walk_ipc(file, [columns.vector]), columns, lenient)
    return Header(n_rows, dim, **types, all_null=lenient and not dim)


def _ipc_batches(file: ShardFile, columns: Columns, rows: int) -> Iterator[pa.RecordBatch]:
    for batch in _walk_ipc(file, columns.present):
        for start in range(0, batch.num_rows, rows):
            yield batch.slice(start, rows)


# ---- raw: a header, then the values row by row -----------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _RawLayout:
    n_rows: int
    dim: int
    dtype: np.dtype[Any]
    offset: int


def _npy_layout(file: ShardFile, stream: pa.NativeFile) -> _RawLayout:
    version = np.lib.format.read_magic(stream)
    read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in read_header:
        raise UnsupportedTypeError(f"{file.uri}: .npy version {version}; write it again with numpy.save")
    try:
        shape, fortran_order, dtype = read_header[version](stream)
    except Exception as error:  # a header is a Python literal: the tokenizer, the parser and the dtype raise anything
        raise ValueError(f"the header is damaged: {error}") from error
    if len(shape) != 2 or dtype.newbyteorder("=") not in (np.float16, np.float32, np.float64, np.uint8):
        raise UnsupportedTypeError(
            f"{file.uri}: holds {dtype} of shape {shape}; expected (rows, features) of {VALUE_TYPE_NAMES}"
        )
    if fortran_order and min(shape) > 1:
        raise UnsupportedTypeError(
            f"{file.uri}: is stored column by column (Fortran order) and cannot be streamed by row; "
            "save numpy.ascontiguousarray(array)"
        )
    return _RawLayout(shape[0], shape[1], dtype, stream.tell())


def _fbin_layout(file: ShardFile, stream: pa.NativeFile) -> _RawLayout:
    n_rows, dim = FBIN_HEADER.unpack(stream.read(FBIN_HEADER.size).ljust(FBIN_HEADER.size, b"\0"))
    return _RawLayout(n_rows, dim, np.dtype("<f4"), FBIN_HEADER.size)


_Layout = Callable[[ShardFile, pa.NativeFile], _RawLayout]


def _raw_header(layout_of: _Layout, file: ShardFile, columns: Columns) -> Header:
    for key, name in (("id_column", columns.id), ("label_column", columns.label)):
        if name is not None:
            raise UnknownColumnError(
                f"{file.uri}: has no column {name!r}; {file.extension} shards hold vectors only; remove data.{key}"
            )
    with file.open() as stream:
        layout = layout_of(file, stream)
    if layout.n_rows < 0 or layout.dim < 0:
        raise CorruptShardError(
            f"{file.uri}: the header claims {layout.n_rows} rows of width {layout.dim}; write the shard again"
        )
    expected = layout.offset + layout.n_rows * layout.dim * layout.dtype.itemsize
    if file.size != expected:
        raise CorruptShardError(
            f"{file.uri}: is {file.size} bytes long, but its header ({layout.n_rows} rows of width {layout.dim}, "
            f"{layout.dtype}) makes it {expected}; {_swapped(layout, file.size) or 'write the shard again'}"
        )
    return Header(layout.n_rows, layout.dim)


def _swapped(layout: _RawLayout, size: int) -> str | None:
    """Say so where the header's two numbers, read in the other byte order, agree with the file's size."""
    n_rows, dim = struct.unpack(">II", FBIN_HEADER.pack(layout.n_rows & 0xFFFFFFFF, layout.dim & 0xFFFFFFFF))
    if layout.offset != FBIN_HEADER.size or size != layout.offset + n_rows * dim * layout.dtype.itemsize:
        return None
    return (
        f"read as big-endian it agrees with the size ({n_rows} rows of width {dim}): .fbin is little-endian, "
        "write the shard again in that byte order"
    )


def _raw_batches(layout_of: _Layout, file: ShardFile, columns: Columns, rows: int) -> Iterator[pa.RecordBatch]:
    with file.open() as stream:
        layout = layout_of(file, stream)
        for start in range(0, layout.n_rows, rows):
            count = min(rows, layout.n_rows - start) * layout.dim
            values = np.frombuffer(stream.read_buffer(count * layout.dtype.itemsize), layout.dtype)
            native = values.astype(layout.dtype.newbyteorder("="), copy=False)
            yield pa.record_batch({columns.vector: to_lists(native.reshape(-1, layout.dim))})


def _raw_format(extension: str, layout_of: _Layout) -> Format:
    return Format(
        (extension,),
        lambda file, columns, lenient: _raw_header(layout_of, file, columns),
        lambda file, columns, rows: _raw_batches(layout_of, file, columns, rows),
    )


FORMATS: dict[FormatName, Format] = {
    "parquet": Format((".parquet", ".pq"), _parquet_header, _parquet_batches),
    "arrow": Format((".arrow", ".feather", ".ipc"), _ipc_header, _ipc_batches),
    "npy": _raw_format(".npy", _npy_layout),
    "fbin": _raw_format(".fbin", _fbin_layout),
}
"""By the name that ``data.format`` gives it."""

"""Raw formats, .npy and .fbin: a header, then the values row by row, wrapped without copying."""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Callable, Iterator
from typing import IO, Any

import numpy as np
import pyarrow as pa

from distspectral.errors import CorruptShardError, UnknownColumnError, UnsupportedTypeError, first_line
from distspectral.storage.rows.columns import to_column
from distspectral.storage.source.columns import VALUE_TYPE_NAMES, VALUE_TYPES, Columns
from distspectral.storage.source.formats.format import Format, Header
from distspectral.storage.source.listing import ShardFile

FBIN_HEADER = struct.Struct("<II")
NPY_TYPES = tuple(np.dtype(kind.to_pandas_dtype()) for kind in VALUE_TYPES)


@dataclasses.dataclass(frozen=True)
class RawLayout:
    """Where the values of a raw file are, and what they are.

    Attributes:
        n_rows: as the header says.
        dim: likewise.
        dtype: of the values, with their byte order.
        offset: bytes before the first one.
    """

    n_rows: int
    dim: int
    dtype: np.dtype[Any]
    offset: int


def read_npy_header(stream: IO[bytes], name: str) -> RawLayout:
    """Return what the header of a .npy file says, whoever wrote it.

    Args:
        stream: at the file's beginning.
        name: of the file, for messages.

    Raises:
        ValueError: it is no such header.
        UnsupportedTypeError: what follows is not rows of numbers, row by row.
    """
    version = np.lib.format.read_magic(stream)
    read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in read_header:
        raise UnsupportedTypeError(f"{name}: .npy version {version}; write it again with numpy.save")
    try:
        shape, fortran_order, dtype = read_header[version](stream)
    except Exception as error:  # a header is a Python literal: the tokenizer, the parser and the dtype raise anything
        raise ValueError(f"the header is damaged: {first_line(error)}") from error
    if any(type(size) is not int or size < 0 for size in shape):  # NumPy lets True and -1 pass
        raise ValueError(f"the header is damaged: shape {shape}")
    if len(shape) != 2 or dtype.newbyteorder("=") not in NPY_TYPES:
        raise UnsupportedTypeError(
            f"{name}: holds {dtype} of shape {shape}; expected (rows, features) of {VALUE_TYPE_NAMES}"
        )
    if fortran_order and min(shape) > 1:
        raise UnsupportedTypeError(
            f"{name}: is stored column by column (Fortran order) and cannot be streamed by row; "
            "save numpy.ascontiguousarray(array)"
        )
    return RawLayout(shape[0], shape[1], dtype, stream.tell())


def npy_layout(file: ShardFile, stream: pa.NativeFile) -> RawLayout:
    """Return what the header of a .npy file says."""
    return read_npy_header(stream, file.uri)


def fbin_layout(file: ShardFile, stream: pa.NativeFile) -> RawLayout:
    """Return what the first eight bytes of a .fbin file say: rows and width, little-endian."""
    n_rows, dim = FBIN_HEADER.unpack(stream.read(FBIN_HEADER.size).ljust(FBIN_HEADER.size, b"\0"))
    return RawLayout(n_rows, dim, np.dtype("<f4"), FBIN_HEADER.size)


_Layout = Callable[[ShardFile, pa.NativeFile], RawLayout]


def _raw_header(layout_of: _Layout, file: ShardFile, columns: Columns) -> Header:
    for key, name in (("data.id_column", columns.id), ("data.label_column", columns.label)):
        if name is not None:
            raise UnknownColumnError(
                f"{file.uri}: has no column {name!r}; {file.extension} shards hold vectors only; remove {key}",
                parameters=[key],
            )
    if columns.features:
        raise UnknownColumnError(
            f"{file.uri}: has no columns {columns.vector!r}; {file.extension} shards hold vectors only; remove "
            "data.column",
            parameters=["data.column"],
        )
    with file.open() as stream:
        layout = layout_of(file, stream)
    expected = layout.offset + layout.n_rows * layout.dim * layout.dtype.itemsize
    if file.size != expected:
        raise CorruptShardError(
            f"{file.uri}: is {file.size} bytes long, but its header ({layout.n_rows} rows of width {layout.dim}, "
            f"{layout.dtype}) makes it {expected}; {_swapped(layout, file.size) or 'write the shard again'}"
        )
    return Header(layout.n_rows, layout.dim)


def _swapped(layout: RawLayout, size: int) -> str | None:
    """Say so where the header's two numbers, read in the other byte order, agree with the file's size."""
    n_rows, dim = struct.unpack(">II", FBIN_HEADER.pack(layout.n_rows & 0xFFFFFFFF, layout.dim & 0xFFFFFFFF))
    if layout.offset != FBIN_HEADER.size or size != layout.offset + n_rows * dim * layout.dtype.itemsize:
        return None
    return (
        f"read as big-endian it agrees with the size ({n_rows} rows of width {dim}): .fbin is little-endian, "
        "write the shard again in that byte order"
    )


def _raw_batches(
    layout_of: _Layout, file: ShardFile, columns: Columns, rows: int, parts: range | None
) -> Iterator[pa.RecordBatch]:
    with file.open() as stream:
        layout = layout_of(file, stream)
        asked = range(layout.n_rows) if parts is None else parts
        stream.seek(layout.offset + asked.start * layout.dim * layout.dtype.itemsize)
        for start in asked[::rows]:
            count = min(rows, asked.stop - start) * layout.dim
            values = np.frombuffer(stream.read_buffer(count * layout.dtype.itemsize), layout.dtype)
            native = values.astype(layout.dtype.newbyteorder("="), copy=False)
            yield pa.record_batch({columns.vector: to_column(native.reshape(-1, layout.dim))})


def raw_format(extension: str, layout_of: _Layout) -> Format:
    """Return the format whose headers ``layout_of`` reads."""
    return Format(
        (extension,),
        lambda file, columns, lenient: _raw_header(layout_of, file, columns),
        lambda file, columns, rows, parts, _: _raw_batches(layout_of, file, columns, rows, parts),
    )

"""Named arrays as a table: vectors are one of two axes, ids, labels and what is carried are of one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import IO, Any

import pyarrow as pa

from distspectral.errors import UnknownColumnError
from distspectral.storage.rows.columns import to_column
from distspectral.storage.source.arrays import Arrays, arrow_type, open_hdf5, open_npz, open_torch
from distspectral.storage.source.columns import VECTOR, Columns, is_vector
from distspectral.storage.source.formats.format import Format, Header
from distspectral.storage.source.formats.tables import completed, inside, table_header
from distspectral.storage.source.listing import ShardFile

PREFERRED = ("obsm/X_pca", "X")
"""Arrays of AnnData that are its vectors where ``data.column`` says nothing, the first that there is."""

Opener = Callable[[ShardFile, IO[bytes]], contextlib.AbstractContextManager[Arrays]]


def named_format(extensions: tuple[str, ...], opened: Opener) -> Format:
    """Return the format whose arrays ``opened`` opens."""

    def header(file: ShardFile, columns: Columns, lenient: bool) -> Header:
        del lenient  # no row is of another width
        with file.open() as stream, opened(file, stream) as arrays:
            name, schema, n_rows = _table(arrays, columns, file)
        dim, types = table_header(schema, columns._replace(vector=name), file)
        return Header(n_rows, dim or 0, **types)

    def batches(
        file: ShardFile, columns: Columns, rows: int, parts: range | None, threads: Any
    ) -> Iterator[pa.RecordBatch]:
        del threads
        with file.open() as stream, opened(file, stream) as arrays:
            name, schema, n_rows = _table(arrays, columns, file)
            own = columns._replace(vector=name)
            names = inside(own, schema, file)
            asked = range(n_rows) if parts is None else parts
            for start in asked[::rows]:
                stop = min(start + rows, asked.stop)
                found = {one: _column(arrays[one].take(start, stop), schema.field(one).type) for one in names}
                batch = completed(pa.record_batch(found), own, file)
                yield batch.rename_columns([columns.vector if one == name else one for one in batch.schema.names])

    return Format(extensions, header, batches)


def _table(arrays: Arrays, columns: Columns, file: ShardFile) -> tuple[str, pa.Schema, int]:
    """Return the name of the vectors, the schema of all arrays of as many rows, and how many these are."""
    kinds = {name: kind for name, rows in arrays.items() if (kind := arrow_type(rows)) is not None}
    name = columns.vector
    if name not in arrays and name == VECTOR and not columns.features:
        preferred = [one for one in PREFERRED if one in kinds]
        matrices = [one for one, kind in kinds.items() if is_vector(kind)]
        name = preferred[0] if preferred else matrices[0] if len(matrices) == 1 else name
    counted = name if name in arrays else columns.features_of(pa.schema(kinds))[0] if columns.features else None
    if counted is None:
        shapes = ", ".join(f"{one} {rows.shape}" for one, rows in arrays.items()) or "none"
        raise UnknownColumnError(
            f"{file.uri}: has no array {name!r}; it has {shapes}; set data.column", parameters=["data.column"]
        )
    n_rows = arrays[counted].shape[0]
    as_many = [(one, kind) for one, kind in kinds.items() if arrays[one].shape[0] == n_rows]
    return name, pa.schema(as_many), n_rows


def _column(values: Any, kind: pa.DataType) -> pa.Array:
    if pa.types.is_string(kind):
        return pa.array([None if one is None else str(one) for one in values.tolist()], kind)
    return to_column(values)


NPZ = named_format((".npz",), lambda file, stream: open_npz(stream, file.uri))
HDF5 = named_format((".h5", ".hdf5", ".h5ad"), lambda file, stream: open_hdf5(stream, file.uri))
TORCH = named_format(
    (".pt", ".pth"), lambda file, stream: open_torch(stream, file.uri, file.path if file.is_local else None)
)

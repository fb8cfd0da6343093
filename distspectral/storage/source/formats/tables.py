"""What Parquet and Arrow IPC have in common: columns of named types, whose vectors may be ragged."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from distspectral.errors import UnsupportedTypeError
from distspectral.storage.source.columns import (
    VALUE_TYPE_NAMES,
    VALUE_TYPES,
    Columns,
    joined,
    lists,
    require_columns,
    scalar_type,
    vector_width,
)
from distspectral.storage.source.listing import ShardFile


def table_header(schema: pa.Schema, columns: Columns, file: ShardFile) -> tuple[int | None, dict[str, Any]]:
    """Return the vectors' width, None where rows may differ, and the other types that a ``Header`` wants."""
    schema = _whole_schema(schema, file)
    require_columns(columns, schema, file.uri)
    types: dict[str, Any] = {
        f"{role}_type": scalar_type(schema.field(name).type, name, file.uri, role)
        for role, name in (("id", columns.id), ("label", columns.label))
        if name is not None
    }
    types["schema"] = schema
    if features := columns.features_of(schema):
        for name in features:
            if schema.field(name).type not in VALUE_TYPES:
                raise UnsupportedTypeError(
                    f"{file.uri}: column {name!r} is {schema.field(name).type}; expected {VALUE_TYPE_NAMES}; convert "
                    "it, or leave it out of data.column",
                    parameters=["data.column"],
                )
        return len(features), types
    return vector_width(schema, columns.vector, file.uri), types


def _whole_schema(schema: pa.Schema, file: ShardFile) -> pa.Schema:
    """Return a file's schema with the columns that its folders stand for; its own columns come first."""
    fields = [pa.field(name, pa.string()) for name in file.partitions if name not in schema.names]
    return pa.schema([*schema, *fields])


def inside(columns: Columns, schema: pa.Schema, file: ShardFile) -> list[str]:
    """Return the names of those columns that are to be read from the file, not from the names of its folders."""
    names = [name for name in columns.present if name in schema.names or name not in file.partitions]
    if features := columns.features_of(schema):
        names = [*features, *(name for name in names if name != columns.vector and name not in features)]
    return names


def completed(batch: pa.RecordBatch, columns: Columns, file: ShardFile) -> pa.RecordBatch:
    """Return a batch with the columns asked for that it lacks: told by the file's folders, or made of its features."""
    if features := columns.features_of(batch.schema):
        batch = batch.append_column(columns.vector, joined(batch, features))
    for name in columns.present:
        if name in file.partitions and name not in batch.schema.names:
            values = pa.repeat(pa.scalar(file.partitions[name], pa.string()), batch.num_rows)
            batch = batch.append_column(name, values)
    return batch


def common_width(batches: Iterator[pa.RecordBatch], columns: Columns) -> int:
    """Return the commonest width among the first rows that are not null, so that a bad row is the odd one; 0: none."""
    for batch in batches:
        widths = pc.list_value_length(lists(batch.column(columns.vector))).drop_null()
        if len(widths):
            return int(pc.mode(widths)[0]["mode"].as_py())
    return 0


def validated(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return the batch, or raise where offsets, indices or strings point outside: nothing else looks at them.

    Raises:
        pa.ArrowInvalid: they do.
    """
    batch.validate(full=True)
    return batch

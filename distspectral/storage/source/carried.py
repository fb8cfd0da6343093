"""Columns that go from the source to the output as they are, whatever they hold: which, of what types, and of a batch.

Shape letters: B rows of a batch.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

from distspectral.errors import UnknownColumnError, UnsupportedTypeError, first_line
from distspectral.storage.source.columns import Columns, require_column

Carry = Literal["all"] | tuple[str, ...]
KEY = "data.carry"


def carried_schema(carry: Carry, columns: Columns, shards: Sequence[tuple[str, pa.Schema | None]]) -> pa.Schema:
    """Return the carried columns with their types: of the first shard where a column is not of nulls alone.

    Args:
        carry: names; ``all``: every column of the first shard but the vectors and the ids.
        columns: those that are read anyway.
        shards: URI and schema of each; None where the format has no columns.

    Raises:
        UnknownColumnError: a shard lacks a column.
        UnsupportedTypeError: its types differ so that one cannot be made the other, or Parquet cannot hold it.
    """
    if not carry:
        return pa.schema([])
    uri, first = shards[0]
    if carry == "all":
        read = (columns.vector, columns.id, *(columns.features_of(first) if first is not None else ()))
        names = [] if first is None else [one for one in first.names if one not in read]
    else:
        names = [one for one in dict.fromkeys(carry) if one != columns.id or one != "id"]  # which the output has
    fields: dict[str, tuple[str, pa.Field]] = {}
    for uri, schema in shards:
        for name in names:
            if schema is None:
                raise UnknownColumnError(f"{uri}: has no column {name!r}, only vectors; leave out {KEY}", [KEY])
            require_column(name, schema, uri, KEY)
            field = schema.field(name)
            known = fields.setdefault(name, (uri, field))
            if pa.types.is_null(known[1].type):
                fields[name] = uri, field
            elif not _becomes(field.type, known[1].type):
                raise UnsupportedTypeError(
                    f"{uri}: column {name!r} is {field.type}, but {known[1].type} in {known[0]}; use one type in all "
                    f"shards, or leave it out of {KEY}",
                    parameters=[KEY],
                )
    for uri, field in fields.values():
        _refuse_unwritable(field, uri)
    return pa.schema([field for _, field in fields.values()])


def carried_columns(batch: pa.RecordBatch, schema: pa.Schema, uri: str) -> pa.RecordBatch:
    """Return the carried columns of a batch of B rows, in the types of the schema.

    Raises:
        UnsupportedTypeError: a value does not fit.
    """
    arrays = []
    for field in schema:
        column = batch.column(field.name)
        try:
            arrays.append(column if column.type == field.type else column.cast(field.type))
        except pa.ArrowInvalid as error:
            raise UnsupportedTypeError(
                f"{uri}: column {field.name!r} does not fit {field.type}, its type in other shards "
                f"({first_line(error)}); use one type in all shards, or leave it out of {KEY}",
                parameters=[KEY],
            ) from error
    return pa.record_batch(arrays, schema=schema)


def _becomes(kind: pa.DataType, other: pa.DataType) -> bool:
    """Whether Arrow can make the one type the other."""
    if kind == other:
        return True
    try:
        pa.nulls(0, kind).cast(other)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return False
    return True


def _refuse_unwritable(field: pa.Field, uri: str) -> None:
    schema = pa.schema([field])
    try:
        with pq.ParquetWriter(io.BytesIO(), schema) as writer:
            writer.write_table(schema.empty_table())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise UnsupportedTypeError(
            f"{uri}: column {field.name!r} is {field.type}, which Parquet cannot hold ({first_line(error)}); leave it "
            f"out of {KEY}, or convert it",
            parameters=[KEY],
        ) from error

"""What Parquet and Arrow IPC have in common: columns of named types, whose vectors may be ragged."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from distspectral.storage.source.columns import Columns, require_columns, scalar_type, vector_width
from distspectral.storage.source.listing import ShardFile


def table_header(schema: pa.Schema, columns: Columns, file: ShardFile) -> tuple[int | None, dict[str, Any]]:
    """Return the vectors' width, None where rows may differ, and the other types that a ``Header`` wants."""
    require_columns(columns, schema, file.uri)
    types: dict[str, Any] = {
        f"{role}_type": scalar_type(schema.field(name).type, name, file.uri)
        for role, name in (("id", columns.id), ("label", columns.label))
        if name is not None
    }
    types["schema"] = schema
    return vector_width(schema.field(columns.vector).type, columns.vector, file.uri), types


def common_width(batches: Iterator[pa.RecordBatch], columns: Columns) -> int:
    """Return the commonest width among the first rows that are not null, so that a bad row is the odd one; 0: none."""
    for batch in batches:
        widths = pc.list_value_length(batch.column(columns.vector)).drop_null()
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

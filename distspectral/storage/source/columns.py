"""A shard's columns to NumPy: vectors as matrices, ids and labels as int64 or string, bad rows named.

Shape letters: B rows of a block, D features.
"""

from __future__ import annotations

import difflib
import fnmatch
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from distspectral.errors import (
    ConfigError,
    NonFiniteRowError,
    ShardWidthError,
    SourceError,
    UnknownColumnError,
    UnsupportedTypeError,
)
from distspectral.storage.rows.columns import ARROW_TYPES, ScalarType
from distspectral.storage.rows.frame import Frame

VALUE_TYPES = (
    *(pa.float16(), pa.float32(), pa.float64()),
    *(pa.int8(), pa.int16(), pa.int32(), pa.int64()),
    *(pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()),
)
VALUE_TYPE_NAMES = "floating-point numbers or integers"
VECTOR = "vector"
"""The vectors' column unless the config names another."""


KEYS = {"data.column": "vector", "data.id_column": "id", "data.label_column": "label"}
"""Of the config, and what they name in :class:`Columns`."""


ON_BAD_ROWS = "data.on_bad_rows"
OR_LEAVE_OUT = f"{ON_BAD_ROWS}: quarantine leaves such rows out"
FILL = f"fill it or drop the row; {OR_LEAVE_OUT}"


class Columns(NamedTuple):
    """Names of the columns to read; None where there is none.

    Attributes:
        vector: of the vectors, or what the features together are called.
        id: of the ids.
        label: of the labels.
        carried: taken over as they are.
        features: each a number of every vector, or a pattern of their names; empty where one column holds vectors.
    """

    vector: str
    id: str | None
    label: str | None
    carried: tuple[str, ...] = ()
    features: tuple[str, ...] | str = ()

    @classmethod
    def of(cls, vector: str | tuple[str, ...], id: str | None, label: str | None) -> Columns:
        """Return the names that a config gives: of one column, of several, or a pattern with ``*``, ``?`` or ``[``."""
        if isinstance(vector, str):
            return cls(vector, id, label, features=vector if any(sign in vector for sign in "*?[") else ())
        if twice := next((name for place, name in enumerate(vector) if name in vector[:place]), None):
            raise ConfigError(f"data.column: names {twice!r} twice; name each feature once", ["data.column"])
        return cls(f"{vector[0]} to {vector[-1]}", id, label, features=vector)

    def features_of(self, schema: pa.Schema) -> list[str]:
        """Return the features' names in a shard; those of a pattern sorted, ``x2`` before ``x10``."""
        if not isinstance(self.features, str) or self.features in schema.names:
            return [] if isinstance(self.features, str) else list(self.features)
        others = (self.id, self.label)
        names = [field.name for field in schema if field.type in VALUE_TYPES and field.name not in others]
        return sorted(fnmatch.filter(names, self.features), key=_naturally)

    def passed_over(self, schema: pa.Schema) -> list[str]:
        """Return the names that a pattern of features fits in a shard, but whose columns hold no numbers."""
        features = self.features_of(schema)
        names = fnmatch.filter(schema.names, self.features) if features and isinstance(self.features, str) else []
        return [name for name in names if name not in (*features, self.id, self.label)]

    def joined_in(self, batch: pa.RecordBatch) -> list[str]:
        """Return the names of the columns that a batch's vectors were joined from; empty if they were one column."""
        place = batch.schema.get_field_index(self.vector)
        names = self.features_of(batch.schema.remove(place))
        return names if len(names) == getattr(batch.schema.field(place).type, "list_size", None) else []

    @property
    def present(self) -> list[str]:
        """The names that are set, each once."""
        names = (self.vector, self.id, self.label, *self.carried)
        return list(dict.fromkeys(name for name in names if name is not None))


def require_columns(columns: Columns, schema: pa.Schema, uri: str) -> None:
    """Check that a shard has the columns.

    Raises:
        UnknownColumnError: naming the nearest column and those there are, or one that occurs twice.
    """
    fits = {"vector": is_vector, "id": is_scalar, "label": is_label}
    features = columns.features_of(schema)
    for name in features:
        require_column(name, schema, uri, "data.column", VALUE_TYPES.__contains__)
    for key, name in KEYS.items():
        if (column := getattr(columns, name)) is not None and not (features and name == "vector"):
            require_column(column, schema, uri, key, fits[name])


def require_column(
    name: str, schema: pa.Schema, uri: str, key: str, fits: Callable[[pa.DataType], bool] | None = None
) -> None:
    """Check that a shard has one column of a name, which ``key`` of the config asks for.

    Args:
        name: of the column.
        schema: of the shard.
        uri: the shard, for messages.
        key: of the config.
        fits: whether a column of this type could be meant; None where any could.

    Raises:
        UnknownColumnError: see :func:`require_columns`.
    """
    if name not in schema.names:
        meant = [field.name for field in schema if fits is None or fits(field.type)]
        nearest = difflib.get_close_matches(name, meant, n=1, cutoff=0.0)
        hint = f"did you mean {nearest[0]!r}? " if nearest else ""
        numbers = sum(field.type in VALUE_TYPES for field in schema)
        remedy = f"set {key}"
        if key == "data.column" and not meant and numbers > 1:
            remedy += ", where each feature has a column to a list of these or to a pattern such as '*'"
        raise UnknownColumnError(
            f"{uri}: has no column {name!r}; {hint}It has {', '.join(schema.names) or 'none'}; {remedy}",
            parameters=[key],
        )
    if schema.names.count(name) > 1:
        raise UnknownColumnError(
            f"{uri}: has {schema.names.count(name)} columns {name!r}; rename all but one, or set {key} to another",
            parameters=[key],
        )


def is_vector(kind: pa.DataType) -> bool:
    """Whether a column of this type can be read as vectors."""
    kind = _stored(kind)
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    is_view = pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind)
    return (is_list or is_view) and kind.value_type in VALUE_TYPES


def _stored(kind: pa.DataType) -> pa.DataType:
    """Return the type below an extension's, such as Arrow's and Ray's tensors of one shape."""
    return _stored(kind.storage_type) if isinstance(kind, pa.BaseExtensionType) else kind


def lists(column: pa.Array) -> pa.Array:
    """Return a vector column as lists or fixed-size lists: tensors flattened, views laid out."""
    while isinstance(column, pa.ExtensionArray):
        column = column.storage
    if pa.types.is_list_view(column.type) or pa.types.is_large_list_view(column.type):
        lengths = pc.list_value_length(column).fill_null(0).to_numpy()  # pyarrow 26 casts views to a wrong last offset
        offsets = pa.array(np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]))
        return pa.LargeListArray.from_arrays(offsets, column.flatten(), mask=column.is_null())
    return column


def is_scalar(kind: pa.DataType) -> bool:
    """Whether a column of this type can be read as ids."""
    return _scalar_type(kind) is not None


def is_label(kind: pa.DataType) -> bool:
    """Whether a column of this type can be read as labels."""
    return is_scalar(kind) or pa.types.is_floating(kind)


def joined(batch: pa.RecordBatch, names: Sequence[str]) -> pa.Array:
    """Return columns of numbers as one of vectors, null at the features that are."""
    columns = [batch.column(name) for name in names]
    values = np.column_stack([column.to_numpy(zero_copy_only=False) for column in columns]).reshape(-1)
    nulls = None
    if any(column.null_count for column in columns):
        nulls = np.column_stack([column.is_null().to_numpy(zero_copy_only=False) for column in columns]).reshape(-1)
    return pa.FixedSizeListArray.from_arrays(pa.array(values, mask=nulls), len(names))


def _naturally(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def vector_width(schema: pa.Schema, name: str, uri: str) -> int | None:
    """Return D of a vector column by its type, or None where only the rows tell (List).

    Raises:
        UnsupportedTypeError: the type is not a list of numbers that can be read.
    """
    kind = _stored(schema.field(name).type)
    if not is_vector(kind):
        fit = " or ".join(repr(field.name) for field in schema if is_vector(field.type))
        hint = "convert it or set data.column" + (f" to {fit}" if fit else "")
        raise UnsupportedTypeError(
            f"{uri}: column {name!r} is {schema.field(name).type}; expected FixedSizeList or List of "
            f"{VALUE_TYPE_NAMES}; {hint}",
            parameters=["data.column"],
        )
    return int(kind.list_size) if pa.types.is_fixed_size_list(kind) else None


def scalar_type(kind: pa.DataType, name: str, uri: str, role: str) -> ScalarType:
    """Return what an id or label column is read as.

    Args:
        kind: of the column.
        name: of the column.
        uri: the shard, for messages.
        role: ``id`` or ``label``; labels may be whole numbers in floating point.

    Raises:
        UnsupportedTypeError: neither integers nor strings.
    """
    if role == "label" and pa.types.is_floating(kind):
        return "int64"
    if (found := _scalar_type(kind)) is None:
        raise UnsupportedTypeError(
            f"{uri}: column {name!r} is {kind}; ids and labels are integers or strings; convert it"
        )
    return found


def _scalar_type(kind: pa.DataType) -> ScalarType | None:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        return "int64"
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    is_bytes = pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)
    is_fixed = pa.types.is_fixed_size_binary(_stored(kind))
    return "string" if is_text or is_bytes or is_fixed else None


def to_matrix(
    column: pa.Array,
    dim: int,
    frame: Frame,
    *,
    name: str,
    uri: str,
    first_row: int,
    copy: bool = True,
    features: Callable[[], Sequence[str]] = tuple,
) -> NDArray[np.float32]:
    """Return a vector column as a matrix, framed.

    Args:
        column: B lists of numbers, possibly a slice.
        dim: the width D that every row must have.
        frame: where the rows lie.
        name: the column's name, for messages.
        uri: the file, for messages.
        first_row: the file's row that ``column`` begins with, for messages.
        copy: of its own; else a read-only view of the column where that is float32 and the frame changes nothing.
        features: returns the D columns that ``column`` was joined from, for messages; none if it is one of the file's.

    Returns:
        (B, D) float32, C-contiguous, writable if a copy.

    Raises:
        ShardWidthError: a row has another width.
        NonFiniteRowError: a value is NaN, infinite, or beyond float32 in this frame.
        SourceError: a row or a value is null.
    """
    column = lists(column)
    _refuse_nulls(column, name, uri, first_row)
    if not pa.types.is_fixed_size_list(column.type):
        widths = pc.list_value_length(column).to_numpy(zero_copy_only=False)
        if len(other := np.flatnonzero(widths != dim)):
            raise ShardWidthError(
                f"{uri}: row {first_row + other[0]} of column {name!r} has width {widths[other[0]]}, expected {dim}; "
                f"all vectors need the same width; {OR_LEAVE_OUT}",
                [ON_BAD_ROWS],
            )
    values = column.flatten()  # not .values, which forgets that the array may be a slice
    if values.null_count:
        row, feature = divmod(int(np.flatnonzero(values.is_null())[0]), dim)
        own = features()
        place = f"{own[feature]!r} is null" if own else f"{name!r} is null at feature {feature}"
        raise SourceError(f"{uri}: row {first_row + row} of column {place}; {FILL}", [ON_BAD_ROWS])
    raw = values.to_numpy(zero_copy_only=True).reshape(-1, dim)
    matrix = raw if not copy and raw.dtype == np.float32 and frame.changes_nothing else frame.framed(raw)
    if not frame.holds(matrix):
        row, feature, problem = frame.first_misfit(raw, matrix)
        own = features()
        place = f"{own[feature]!r}" if own else f"{name!r}, feature {feature}"
        raise NonFiniteRowError(
            f"{uri}: row {first_row + row} of column {place}: {problem}; drop or repair the row; {OR_LEAVE_OUT}",
            ["pack.dtype", ON_BAD_ROWS] if "pack.dtype" in problem else [ON_BAD_ROWS],
        )
    return matrix


def decoded(column: pa.Array) -> pa.Array:
    """Return a column without dictionary encoding, whose own values can be null too; bytes of one length as text.

    UUIDs look as usual, other such bytes, which are digests mostly, are hexadecimal.
    """
    column = column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
    if getattr(column.type, "extension_name", None) == "arrow.uuid":
        return pa.array([None if one is None else str(one) for one in column.to_pylist()], pa.string())
    while isinstance(column, pa.ExtensionArray):
        column = column.storage
    if pa.types.is_fixed_size_binary(column.type):
        return pa.array([None if one is None else one.hex() for one in column.to_pylist()], pa.string())
    return column


def to_scalars(
    column: pa.Array, kind: ScalarType, *, name: str, uri: str, first_row: int, may_lack: bool = False
) -> pa.Array:
    """Return an id or label column as int64 or string.

    Args:
        column: B values.
        kind: what they become.
        name: the column's name, for messages.
        uri: the file, for messages.
        first_row: the file's row that ``column`` begins with, for messages.
        may_lack: whether values may be missing; of floating-point numbers NaN is missing, too.

    Raises:
        UnsupportedTypeError: a value is beyond int64.
        SourceError: a value is null.
    """
    column = decoded(column)
    if not may_lack:
        _refuse_nulls(column, name, uri, first_row)
    elif pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
    try:
        return column.cast(ARROW_TYPES[kind])
    except pa.ArrowInvalid as error:
        raise UnsupportedTypeError(
            f"{uri}: column {name!r} does not fit {kind} between rows {first_row} and "
            f"{first_row + len(column) - 1} ({error})"
        ) from error


def _refuse_nulls(column: pa.Array, name: str, uri: str, first_row: int) -> None:
    if column.null_count:
        row = first_row + int(np.flatnonzero(column.is_null())[0])
        raise SourceError(f"{uri}: row {row} of column {name!r} is null; {FILL}", [ON_BAD_ROWS])

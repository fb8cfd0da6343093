"""Rows that cannot be used, all of a batch at once, for the policy that sets them aside instead of stopping.

Shape letters: B rows of a batch, M bad rows among them, D features.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from distspectral.storage.rows.columns import ARROW_TYPES, ScalarType
from distspectral.storage.rows.frame import Frame
from distspectral.storage.source.columns import Columns, decoded, lists

REASONS = (
    "null vector",
    "wrong width",
    "null feature",
    "NaN or infinity",
    "beyond float32",
    "null id",
    "id beyond int64",
    "label beyond int64",
)
"""Why a row can be bad; a row that is bad twice has the first."""

INT64_MAX = np.iinfo(np.int64).max


@dataclasses.dataclass(frozen=True)
class BadRows:
    """The bad rows of one batch.

    Attributes:
        rows: (M,) int64, ascending, positions in the batch.
        reasons: (M,) int8, positions in ``REASONS``.
        features: (M,) int64, the first feature at fault, -1 where the whole row is.
        found: (M,) object, the value or width found as text, None where there is nothing to show.
    """

    rows: NDArray[np.int64]
    reasons: NDArray[np.int8]
    features: NDArray[np.int64]
    found: NDArray[np.object_]

    def table(self, ids: pa.Array, first_row: int, uri: str) -> pa.RecordBatch:
        """Return the rows as they are kept: id (null where it is what is wrong), file, row, reason, feature, found.

        Args:
            ids: B ids of the batch, as :func:`readable_ids` gives them.
            first_row: the file's row that the batch begins with.
            uri: the file.
        """
        features = pa.array(self.features, pa.int64(), mask=self.features < 0)
        columns = {
            "id": ids.take(pa.array(self.rows)),
            "file": pa.repeat(uri, len(self.rows)),
            "row": pa.array(first_row + self.rows),
            "reason": pa.array(REASONS).take(pa.array(self.reasons)),
            "feature": features,
            "found": pa.array(self.found, pa.string()),
        }
        return pa.record_batch(columns)


class _Marks:
    """What was found of each of B rows; the first finding stays."""

    def __init__(self, n_rows: int) -> None:
        self.reasons = np.full(n_rows, -1, np.int8)
        self.features = np.full(n_rows, -1, np.int64)
        self.found = np.full(n_rows, None, dtype=object)

    def add(
        self, rows: NDArray[np.int64], reason: str, features: NDArray[np.int64] | None = None, found: object = None
    ) -> None:
        new = self.reasons[rows] < 0
        rows = rows[new]
        self.reasons[rows] = REASONS.index(reason)
        if features is not None:
            self.features[rows] = features[new]
        if found is not None:
            self.found[rows] = np.asarray(found, dtype=object)[new]


def find_bad_rows(
    batch: pa.RecordBatch,
    columns: Columns,
    dim: int,
    frame: Frame,
    id_type: ScalarType | None,
    label_type: ScalarType | None,
) -> BadRows:
    """Return the rows of a batch that ``columns.to_matrix`` or ``columns.to_scalars`` would refuse.

    Args:
        batch: B rows with the columns.
        columns: their names.
        dim: D, which every row must have.
        frame: where the rows lie.
        id_type: what ids are read as, None without an id column.
        label_type: what labels are read as, None without a label column.
    """
    marks = _Marks(batch.num_rows)
    _mark_vectors(marks, lists(batch.column(columns.vector)), dim, frame)
    for role, name, kind in (("id", columns.id, id_type), ("label", columns.label, label_type)):
        if name is not None and kind is not None:
            _mark_scalars(marks, decoded(batch.column(name)), kind, role)
    rows = np.flatnonzero(marks.reasons >= 0)
    return BadRows(rows, marks.reasons[rows], marks.features[rows], marks.found[rows])


def readable_ids(batch: pa.RecordBatch, columns: Columns, id_type: ScalarType | None, first_id: int) -> pa.Array:
    """Return the batch's ids, null where they are null or beyond int64; row numbers from ``first_id`` without any."""
    if columns.id is None or id_type is None:
        return pa.array(np.arange(first_id, first_id + batch.num_rows, dtype=np.int64))
    ids = decoded(batch.column(columns.id))
    if pa.types.is_uint64(ids.type):
        ids = pc.if_else(pc.less_equal(ids, pa.scalar(INT64_MAX, pa.uint64())), ids, pa.scalar(None, pa.uint64()))
    return ids.cast(ARROW_TYPES[id_type])


def _mark_vectors(marks: _Marks, vectors: pa.Array, dim: int, frame: Frame) -> None:
    marks.add(_where(vectors.is_null()), "null vector")
    if not pa.types.is_fixed_size_list(vectors.type):
        widths = pc.list_value_length(vectors).fill_null(dim).to_numpy(zero_copy_only=False)
        other = np.flatnonzero(widths != dim)
        marks.add(other, "wrong width", found=widths[other].astype(str))
    rest = np.flatnonzero(marks.reasons < 0)
    if not len(rest):
        return
    values = vectors.take(pa.array(rest)).flatten()
    if values.null_count:
        places = _where(values.is_null())
        at, first = np.unique(places // dim, return_index=True)
        marks.add(rest[at], "null feature", places[first] % dim)
    raw = values.to_numpy(zero_copy_only=False).reshape(-1, dim)
    bad = frame.misfits(frame.framed(raw))
    at = np.flatnonzero(bad.any(axis=1))
    features = bad[at].argmax(axis=1)
    found = raw[at, features]
    for reason, chosen in (("NaN or infinity", ~np.isfinite(found)), ("beyond float32", np.isfinite(found))):
        marks.add(rest[at[chosen]], reason, features[chosen], found[chosen].astype(np.float64).astype(str))


def _mark_scalars(marks: _Marks, column: pa.Array, kind: ScalarType, role: str) -> None:
    if role == "id":  # a row may lack its label, by which it is judged only
        marks.add(_where(column.is_null()), "null id")
    if kind == "int64" and pa.types.is_uint64(column.type):
        beyond = _where(pc.greater(column, pa.scalar(INT64_MAX, pa.uint64())).fill_null(False))
        marks.add(beyond, f"{role} beyond int64", found=column.take(pa.array(beyond)).cast(pa.string()).to_pylist())


def _where(mask: pa.Array) -> NDArray[np.int64]:
    return np.flatnonzero(mask.to_numpy(zero_copy_only=False))

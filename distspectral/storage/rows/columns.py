"""NumPy to Arrow columns: what ids and labels are, matrices as fixed-size lists, and back.

Shape letters: B rows, D features.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import IO, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

ScalarType = Literal["int64", "string"]

ARROW_TYPES = {"int64": pa.int64(), "string": pa.string()}
"""Of ids and labels, once read."""


def to_column(array: NDArray[Any]) -> pa.Array:
    """Return a (B,) array as B numbers, a (B, D) matrix as B lists of width D; copied unless C-contiguous."""
    if array.ndim == 1:
        return pa.array(array)
    return pa.FixedSizeListArray.from_arrays(pa.array(array.reshape(-1)), array.shape[1])


def to_array(column: pa.Array) -> NDArray[Any]:
    """Return the view (B,) or (B, D) of what :func:`to_column` made."""
    if not pa.types.is_fixed_size_list(column.type):
        return column.to_numpy(zero_copy_only=True)  # type: ignore[no-any-return]
    flat = column.flatten()  # not .values, which forgets that the array may be a slice
    return flat.to_numpy(zero_copy_only=True).reshape(len(column), column.type.list_size)  # type: ignore[no-any-return]


def write_parquet(stream: IO[bytes], columns: Mapping[str, Any]) -> None:
    """Write one Parquet file.

    Args:
        stream: open binary file.
        columns: by name; NumPy arrays as :func:`to_column` makes them, all else what pyarrow makes of it.
    """
    arrays = {name: to_column(column) if isinstance(column, np.ndarray) else column for name, column in columns.items()}
    pq.write_table(pa.table(arrays), stream)

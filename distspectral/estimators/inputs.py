"""What rows in memory come in besides arrays and tables of numbers: columns of lists, and tensors.

Shape letters: B rows, D features.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from scipy import sparse

from distspectral.errors import ConfigError


def as_rows(X: Any) -> Any:
    """Return what scikit-learn's validation takes: an array (B, D) in place of a column of lists or a tensor.

    A column is a pandas or Polars series, an Arrow array, or a table of one such column. A tensor is detached and
    brought to the CPU; one of bfloat16, which NumPy lacks, becomes float32. Anything else is handed on as it is.

    Raises:
        ConfigError: rows have different lengths, lists stand among other columns, or a tensor is sparse.
    """
    if isinstance(X, torch.Tensor):
        if X.layout != torch.strided:
            raise ConfigError("X: is a sparse tensor; give X.to_dense(), or a SciPy matrix of its entries")
        there = X.detach().cpu()
        return (there.float() if there.dtype == torch.bfloat16 else there).numpy()
    if isinstance(X, pa.RecordBatch):
        X = pa.Table.from_batches([X])
    if isinstance(X, pa.Table) or hasattr(X, "columns"):
        return _of_table(X)
    if sparse.issparse(X) or (isinstance(X, np.ndarray) and X.dtype != object) or not hasattr(X, "__array__"):
        return X
    array = np.asarray(X)
    return _stacked(array) if _holds_lists(array) else X


def _of_table(table: Any) -> Any:
    """Return the rows of a table of one column of lists; another table, but for Arrow's, as it is."""
    names = list(table.column_names if isinstance(table, pa.Table) else table.columns)
    if len(set(names)) < len(names):
        return table
    head = table.slice(0, 1) if isinstance(table, pa.Table) else table.head(1)
    firsts = {name: np.asarray(head[name].to_numpy()) for name in names}
    lists = [name for name, first in firsts.items() if first.ndim == 2 or _holds_lists(first)]
    if not lists:
        return np.column_stack([table[name].to_numpy() for name in names]) if isinstance(table, pa.Table) else table
    if len(names) > 1:
        raise ConfigError(f"X: column {lists[0]!r} holds lists, among other columns; give X[{lists[0]!r}] alone")
    array = np.asarray(table[names[0]].to_numpy())
    return _stacked(array) if array.ndim == 1 else array


def _holds_lists(column: NDArray[Any]) -> bool:
    """Whether the first that is there of a column (B,) of objects is a row of numbers."""
    if column.dtype != object or column.ndim != 1:
        return False
    return isinstance(next((one for one in column if one is not None), None), list | tuple | np.ndarray)


def _stacked(column: NDArray[Any]) -> NDArray[Any]:
    """Return the array (B, D) of a column (B,) of rows.

    Raises:
        ConfigError: one has another length than the first, or is none.
    """
    width = next(len(one) for one in column if one is not None)
    for number, row in enumerate(column):
        if not isinstance(row, list | tuple | np.ndarray) or len(row) != width:
            found = f"holds {len(row)} numbers" if hasattr(row, "__len__") else f"is {row!r}"
            raise ConfigError(f"X: row {number} {found}, others hold {width}; give rows of one length")
    return np.stack([np.asarray(row) for row in column])

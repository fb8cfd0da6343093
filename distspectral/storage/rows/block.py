"""Rows of one shard in memory, between the source that reads them and the packed shard that keeps them.

Shape letters: B rows of a block, D features.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


@dataclasses.dataclass(frozen=True)
class Block:
    """Rows of one shard in its order: consecutive, but for those that were left out.

    Attributes:
        vectors: (B, D) float32, scaled, finite; writable unless read without copying.
        ids: B ids (int64 or string), None where the source has no id column.
        labels: B labels (int64 or string), null of rows that have none, None where the source has no label column.
        first_row: the shard's row that the block begins with.
        offsets: (B,) int64, how far behind ``first_row`` each row is in the shard; None where none was left out.
        carried: B rows of the columns that the output takes over, None where it takes over none.
    """

    vectors: NDArray[np.float32]
    ids: pa.Array | None
    labels: pa.Array | None
    first_row: int
    offsets: NDArray[np.int64] | None = None
    carried: pa.RecordBatch | None = None

    @property
    def n_rows(self) -> int:
        """B."""
        return len(self.vectors)

    def global_ids(self, shard_first_row: int) -> pa.Array:
        """Return the B ids; where the source has none, row numbers in the whole dataset (int64).

        Args:
            shard_first_row: number of the shard's first row in the whole dataset.
        """
        if self.ids is not None:
            return self.ids
        offsets = np.arange(self.n_rows, dtype=np.int64) if self.offsets is None else self.offsets
        return pa.array(shard_first_row + self.first_row + offsets)

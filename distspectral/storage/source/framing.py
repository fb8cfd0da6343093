"""The frame of a dataset, from a few of its rows: all of them where they are few, else some from all over it.

Shape letters: N rows, S rows looked at, D features.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from distspectral.storage.rows.frame import SEEN_VALUES, Frame, StoredType
from distspectral.storage.source.columns import lists
from distspectral.storage.source.dataset import Source
from distspectral.storage.source.formats import FORMATS, Threads, reading
from distspectral.storage.source.shards import SourceShard

PLACES = 16
"""Evenly spaced over a dataset of many rows, at which some are looked at."""


def framed(source: Source, dtype: StoredType = "float32", *, seen_values: int = SEEN_VALUES) -> Source:
    """Return the dataset read in the frame of its own rows, the same one each time.

    Rows that cannot be used are passed over here; whoever reads them says what is wrong.

    Args:
        source: the opened dataset.
        dtype: that framed rows are stored in.
        seen_values: most values looked at, about.
    """
    if source.n_rows * source.dim <= seen_values:
        places, most = [(shard, 0) for shard in source.shards], source.n_rows
    else:
        first_rows = [shard.first_row for shard in source.shards]
        numbers = np.linspace(0, source.n_rows, PLACES, endpoint=False, dtype=np.int64)
        found = np.searchsorted(first_rows, numbers, side="right") - 1
        places = [(source.shards[i], int(n) - first_rows[i]) for i, n in zip(found, numbers, strict=True)]
        most = max(seen_values // (PLACES * source.dim), 1)
    with ThreadPoolExecutor(PLACES) as pool:
        parts = list(pool.map(lambda place: _rows_at(source, place[0], place[1], most), places))
    return source.framed(Frame.of(np.concatenate(parts), source.config.scale, dtype))


def _rows_at(source: Source, shard: SourceShard, row: int, most: int) -> NDArray[Any]:
    """Return at most so many usable rows of a shard, from the part of it on that holds ``row``."""
    columns = source.config.columns._replace(id=None, label=None)
    kept: list[NDArray[Any]] = []
    n_kept = 0
    with reading(shard.file, shard.format):
        for batch in FORMATS[shard.format].batches(shard.file, columns, most, _from(source, shard, row), Threads(1, 0)):
            kept.append(_usable(batch.column(columns.vector), source.dim))
            n_kept += len(kept[-1])
            if n_kept >= most:
                break
    return np.concatenate([np.empty((0, source.dim)), *kept])[:most]


def _from(source: Source, shard: SourceShard, row: int) -> range | None:
    """Return the parts of a shard from that on which holds ``row``; None: all of them."""
    file = shard.file
    if not row or (shard.format == "arrow" and not file.is_local):  # whose parts only a walk through all of it tells
        return shard.parts
    parts = FORMATS[shard.format].header(file, source.config.columns, True).parts
    if parts is None:
        return range(shard.file_row + row, shard.file_row + shard.n_rows)
    stop = len(parts) if shard.parts is None else shard.parts.stop
    return range(int(np.searchsorted(np.cumsum(parts), shard.file_row + row, side="right")), stop)


def _usable(vectors: pa.Array, dim: int) -> NDArray[np.float64]:
    """Return the rows (S, D) that have D finite values."""
    vectors = lists(vectors)
    vectors = vectors.filter(pc.equal(pc.list_value_length(vectors), dim).fill_null(False))
    values = vectors.flatten().to_numpy(zero_copy_only=False).reshape(-1, dim).astype(np.float64)
    finite: NDArray[np.float64] = values[np.isfinite(values).all(axis=1)]
    return finite

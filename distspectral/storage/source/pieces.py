"""Where a large file is cut, so that it is work for several tasks and not for one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

PIECE_BYTES = 1 << 30
"""Most float32 vectors of one shard, about, unless the caller says otherwise: seconds of packing or embedding, which is
what a lost worker costs, and at 1e9 rows of width 96 some hundred shards, which is enough for as many workers."""

PIECE_ROWS = 1 << 22
"""Most rows of one shard, likewise: narrow rows cost by the row."""


class Piece(NamedTuple):
    """Consecutive rows of one file.

    Attributes:
        first_row: the file's row that it begins with.
        n_rows: its rows.
        parts: the parts of the file that it consists of; None for the whole file.
    """

    first_row: int
    n_rows: int
    parts: range | None


def piece_rows(dim: int, most_rows: int = PIECE_ROWS, most_bytes: int = PIECE_BYTES) -> int:
    """Return the most rows of a piece of vectors of width ``dim``."""
    return max(1, min(most_rows, most_bytes // (4 * dim)))


def pieces(n_rows: int, parts: Sequence[int] | None, most_rows: int) -> list[Piece]:
    """Cut a file into pieces of about equal size, between parts; a part that is larger stays whole.

    Args:
        n_rows: of the file, at least 1.
        parts: rows of each part that can be read without those before it; None where every row can.
        most_rows: of a piece, exceeded by less than a part.
    """
    n_pieces = -(-n_rows // most_rows)
    cuts = np.arange(n_pieces + 1) * n_rows // n_pieces
    rows = places = cuts
    if parts is not None:
        ends = np.cumsum([0, *parts])
        places = np.unique(np.searchsorted(ends, cuts))
        rows = ends[places]
    if len(places) == 2:
        return [Piece(0, n_rows, None)]
    spans = zip(rows[:-1].tolist(), rows[1:].tolist(), places[:-1].tolist(), places[1:].tolist(), strict=True)
    return [Piece(first, last - first, range(start, stop)) for first, last, start, stop in spans]

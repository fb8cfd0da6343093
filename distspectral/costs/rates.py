"""Measured rates as plain values: what the formulas take of this machine and this data.

Microseconds are those of one core; rates per row hold for any number of rows.
"""

from __future__ import annotations

from distspectral.frozen import FrozenModel
from distspectral.graph.config import LocalSolver


class StepRate(FrozenModel):
    """Core-seconds of one training step of B rows: ``fixed_s + row_s * B``; edges and pairs count as one row."""

    fixed_s: float
    row_s: float

    def seconds(self, rows: float) -> float:
        """Return what a step of so many rows takes."""
        return self.fixed_s + self.row_s * rows


class SearchRate(FrozenModel):
    """The neighbour search, as multiples of the cost model that chooses its cells.

    Attributes:
        dim: features of the searched rows.
        truth_us: a row's part in finding the sample's exact neighbours.
        route: what routing took over what the model says.
        solve: likewise the search inside cells.
        merge: likewise merging.
        pair_us: one pair of an exact search.
        copies: cells of a row in the sample.
        copies_per_decade: how many more when the rows are ten times as many.
        cells: of the sample.
        solver: inside them.
    """

    dim: int
    truth_us: float
    route: float
    solve: float
    merge: float
    pair_us: float
    copies: float
    copies_per_decade: float
    cells: int
    solver: LocalSolver


class Rates(FrozenModel):
    """Everything that was measured.

    Attributes:
        dim: D, of the source.
        sample_rows: rows it was measured on.
        source_bytes: of a row in its file.
        read_us: of reading a row from its file.
        core_us: of one row, by stage and kind of task, reading the source left out; and by stage and piece, for
            what a stage times of itself.
        alone_s: core-seconds by stage beside its tasks, on the sample.
        steps: by stage that trains.
        searches: by stage that searches.
        kept_bytes: of one row, by stage that writes an artifact.
        row_numbers: numbers of other rows within these bytes; each takes four, and eight beyond 2^32 rows.
        disk_write: bytes per second, to the disk.
        disk_read: bytes per second, from the disk, not from its cache.
        base_bytes: resident memory of a process that has loaded everything and no data.
        seconds: that measuring took.
    """

    dim: int
    sample_rows: int
    source_bytes: float
    read_us: float
    core_us: dict[str, dict[str, float]]
    alone_s: dict[str, float]
    steps: dict[str, StepRate]
    searches: dict[str, SearchRate]
    kept_bytes: dict[str, float]
    row_numbers: dict[str, int]
    disk_write: float
    disk_read: float
    base_bytes: float
    seconds: float

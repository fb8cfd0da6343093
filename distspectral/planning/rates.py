"""Measured rates as plain values: what the formulas take of this machine and this data.

Microseconds are those of one core; rates per row hold for any number of rows.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from distspectral.graph.config import LocalSolver


class _Facts(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class StepRate(_Facts):
    """Core-seconds of one training step of B rows: ``fixed_s + row_s * B``; edges and pairs count as one row."""

    fixed_s: float
    row_s: float

    def seconds(self, rows: float) -> float:
        """Return what a step of so many rows takes."""
        return self.fixed_s + self.row_s * rows


class SearchRate(_Facts):
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
        fixed_s: of calibration.
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
    fixed_s: float


class Rates(_Facts):
    """Everything that was measured.

    Attributes:
        dim: D, of the source.
        sample_rows: rows it was measured on.
        source_bytes: of a row in its file.
        core_us: of one row, by what is done with it.
        forward_us: the networks' share of it, where there is one.
        driver_us: of one row, in the driver alone, by what is done with it.
        steps: by stage of training.
        searches: by stage of searching.
        fixed_s: by stage, whatever the rows.
        kept_bytes: of one row, by stage that writes an artifact.
        disk_write: bytes per second, to the disk.
        disk_read: bytes per second, from the disk, not from its cache.
        base_bytes: resident memory of a process that has loaded everything and no data.
        seconds: that measuring took.
    """

    dim: int
    sample_rows: int
    source_bytes: float
    core_us: dict[str, float]
    forward_us: dict[str, float]
    driver_us: dict[str, float]
    steps: dict[str, StepRate]
    searches: dict[str, SearchRate]
    fixed_s: dict[str, float]
    kept_bytes: dict[str, float]
    disk_write: float
    disk_read: float
    base_bytes: float
    seconds: float

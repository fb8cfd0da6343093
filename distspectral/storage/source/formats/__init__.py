"""The file formats a source shard can have: each tells its rows and width from its header, and streams batches.

Every format yields Arrow record batches, so that what follows has one path.
"""

from __future__ import annotations

from typing import Literal

from distspectral.storage.source.formats import arrow, parquet
from distspectral.storage.source.formats.format import Format, Header, Threads, reading
from distspectral.storage.source.formats.fragments import CSV, JSONL, ORC, TSV
from distspectral.storage.source.formats.named import HDF5, NPZ, TORCH
from distspectral.storage.source.formats.raw import fbin_layout, npy_layout, raw_format

__all__ = ["FORMATS", "OF_SHARDS", "Format", "FormatName", "Header", "Threads", "reading"]

FormatName = Literal["parquet", "arrow", "npy", "fbin", "npz", "hdf5", "torch", "csv", "tsv", "jsonl", "orc"]

FORMATS: dict[FormatName, Format] = {
    "parquet": Format((".parquet", ".pq"), parquet.header, parquet.batches),
    "arrow": Format((".arrow", ".feather", ".ipc"), arrow.header, arrow.batches),
    "npy": raw_format(".npy", npy_layout),
    "fbin": raw_format(".fbin", fbin_layout),
    "npz": NPZ,
    "hdf5": HDF5,
    "torch": TORCH,
    "csv": CSV,
    "tsv": TSV,
    "jsonl": JSONL,
    "orc": ORC,
}
"""By the name that ``data.format`` gives it."""

OF_SHARDS: tuple[FormatName, ...] = ("parquet", "arrow", "npy", "fbin")
"""Those taken first where ``data.format`` is ``auto``: beside them lie tables of labels and weights."""

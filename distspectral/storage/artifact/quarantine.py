"""Where rows that were left out are kept: one Arrow IPC file for each output shard that misses some.

The folder is hidden, so that whoever reads the artifact as a dataset passes it by. Its files are no Parquet, for DuckDB
takes all Parquet below the folder that it is given, hidden or not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc

from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.artifact.manifest import Shard

FOLDER = ".quarantine"


def write_quarantine(artifact: Artifact, name: str, tables: Sequence[pa.RecordBatch]) -> dict[str, Any]:
    """Write the rows left out of one shard, whole or not at all; return what the shard's receipt says of them.

    Call it before the shard's receipt is written: a shard that counts as done has its quarantine.

    Args:
        artifact: that holds the shard.
        name: of the shard.
        tables: from ``BadRows.table``; with none, nothing is written.
    """
    if not tables:
        return {}
    path = _file_beside(name)
    table = pa.Table.from_batches(tables)
    artifact.filesystem.create_dir(artifact.file_path(FOLDER), recursive=True)
    artifact.write_file(path, lambda stream: _write(stream, table))
    reasons = pc.value_counts(table["reason"]).to_pylist()
    return {"quarantine": path, "reasons": {item["values"]: item["counts"] for item in reasons}}


def quarantine_files(shards: Sequence[Shard]) -> tuple[str, ...]:
    """Return the files that :func:`write_quarantine` wrote for these shards, by their receipts."""
    return tuple(shard.details["quarantine"] for shard in shards if "quarantine" in shard.details)


def renamed(shard: Shard, name: str) -> Shard:
    """Return the receipt of a shard, and of its quarantine, once they are called by another shard's name."""
    beside = {"quarantine": _file_beside(name)} if "quarantine" in shard.details else {}
    return shard.model_copy(update={"name": name, "details": shard.details | beside})


def quarantine_metrics(shards: Sequence[Shard]) -> dict[str, Any]:
    """Return how many rows are missing, why and from how many shards: ``{"n_rows", "reasons", "n_shards"}``."""
    reasons: Counter[str] = Counter()
    for shard in shards:
        reasons.update(shard.details.get("reasons", {}))
    return {
        "n_rows": reasons.total(),
        "reasons": dict(sorted(reasons.items())),
        "n_shards": len(quarantine_files(shards)),
    }


def _file_beside(name: str) -> str:
    return f"{FOLDER}/{PurePosixPath(name).stem}.arrow"


def _write(stream: IO[bytes], table: pa.Table) -> None:
    with pa.ipc.new_file(stream, table.schema) as writer:
        writer.write_table(table)

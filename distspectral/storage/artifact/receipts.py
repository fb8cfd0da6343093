"""Receipts: a small JSON file after each shard says that it is done, so a stage that died goes on with the others."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import IO, Any

from distspectral.errors import MissingArtifactError
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.artifact.manifest import Shard

RECEIPTS = "receipts"


def write_shard(
    artifact: Artifact, name: str, write: Callable[[IO[bytes]], int], details: dict[str, Any] | None = None
) -> Shard:
    """Write one shard and then its receipt; return the receipt.

    Args:
        artifact: the directory, opened by ``Output.begin``.
        name: of the shard, relative to the directory.
        write: called with an open binary file; returns how many rows it wrote.
        details: JSON-serialisable facts that the stage's last step needs of each shard; ``write`` may still fill
            them in.

    Raises:
        OutputNotWritableError: the disk is full.
    """
    n_rows = 0

    def counted(stream: IO[bytes]) -> None:
        nonlocal n_rows
        n_rows = write(stream)

    n_bytes = artifact.write_file(name, counted)
    return write_receipt(artifact, Shard(name=name, n_rows=n_rows, n_bytes=n_bytes, details=details or {}))


def write_receipt(artifact: Artifact, shard: Shard) -> Shard:
    """Mark a shard that stands in the directory as done; return it."""
    if not artifact.is_local or not os.path.isdir(artifact.file_path(RECEIPTS)):
        artifact.filesystem.create_dir(artifact.file_path(RECEIPTS), recursive=True)
    artifact.write_json(f"{RECEIPTS}/{shard.name}.json", shard.model_dump())
    return shard


def read_receipts(artifact: Artifact) -> dict[str, Shard]:
    """Return the shards done so far, by name, of an artifact that is being written."""
    found: list[Shard] = []
    for info in artifact.entries(RECEIPTS):
        if info.base_name.endswith(".json") and not info.base_name.startswith("."):
            # a damaged receipt is none, its shard is written again; one that is gone was tidied away by who finished
            with contextlib.suppress(ValueError, MissingArtifactError):
                found.append(Shard.model_validate_json(artifact.read_bytes(f"{RECEIPTS}/{info.base_name}")))
    sizes = artifact.sizes([shard.name for shard in found])
    return {shard.name: shard for shard in found if sizes[shard.name] == shard.n_bytes}

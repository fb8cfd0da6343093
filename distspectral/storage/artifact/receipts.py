"""Receipts: a small JSON file after each shard says that it is done, so a stage that died goes on with the others."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import IO, Any

from distspectral.errors import MissingArtifactError
from distspectral.mapping import Mapper
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.artifact.manifest import Shard

RECEIPTS = ".receipts"

READ_THREADS = 16
"""Receipts asked for at once."""


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
    version = artifact.version(name)
    shard = Shard(name=name, n_rows=n_rows, n_bytes=n_bytes, details=details or {}, version=version)
    return write_receipt(artifact, shard)


def write_missing(
    done: dict[str, Shard],
    mapper: Mapper,
    task: Callable[[Any], Shard],
    items: Sequence[tuple[Any, ...]],
    description: str,
    *,
    on_gpu: bool = False,
) -> list[Shard]:
    """Return the shards of all items, in order, of which a task writes each that is not done.

    Args:
        done: shards that need not be written, by name, of ``Output.begin``; the new ones are added.
        mapper: runs the tasks, if there are any.
        task: writes the shard of an item and returns its receipt.
        items: tuples that begin with the shard's name.
        description: of the work, as for the mapper.
        on_gpu: likewise.
    """
    missing = [item for item in items if item[0] not in done]
    if missing:
        done |= {shard.name: shard for shard in mapper(task, missing, description, on_gpu=on_gpu)}
    return [done[name] for name, *_ in items]


def write_receipt(artifact: Artifact, shard: Shard) -> Shard:
    """Mark a shard that stands in the directory as done; return it."""
    artifact.write_json(f"{RECEIPTS}/{shard.name}.json", shard.model_dump())
    return shard


def read_receipts(artifact: Artifact) -> dict[str, Shard]:
    """Return the shards done so far, by name, of an artifact that is being written."""

    def read(name: str) -> Shard | None:
        # a damaged receipt is none, its shard is written again; one that is gone was tidied away by who finished
        with contextlib.suppress(ValueError, MissingArtifactError):
            return Shard.model_validate_json(artifact.read_bytes(f"{RECEIPTS}/{name}"))
        return None

    names = [info.base_name for info in artifact.entries(RECEIPTS)]
    names = [name for name in names if name.endswith(".json") and not name.startswith(".")]
    with ThreadPoolExecutor(READ_THREADS) as pool:
        found = [shard for shard in pool.map(read, names) if shard is not None]
    sizes = artifact.sizes([shard.name for shard in found])
    return {shard.name: shard for shard in found if sizes[shard.name] == shard.n_bytes}

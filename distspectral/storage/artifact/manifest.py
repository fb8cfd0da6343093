"""What an artifact says of itself: shards, rows, schema, fingerprint and what it cost.

The manifest is the last file a stage writes, so its presence means that everything it lists is whole.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

FORMAT_VERSION = 8
"""Raised whenever a stage's output for the same input and config changes."""


def _inside(name: str) -> str:
    """Return the name of a file of an artifact, if it is one: relative, and below the artifact's directory.

    Raises:
        ValueError: it leads elsewhere.
    """
    if name.startswith("/") or "://" in name or ".." in name.split("/"):
        raise ValueError(f"file name {name!r} leads out of the artifact's directory")
    return name


FileName = Annotated[str, AfterValidator(_inside)]


class Shard(BaseModel):
    """One file of an artifact: its name, rows, size and what its writer measured.

    Attributes:
        name: relative to the directory.
        n_rows: that it holds.
        n_bytes: its size.
        details: what its writer measured.
        version: what an object store calls this content, by which copies of the file are known; None on a disk.
    """

    model_config = ConfigDict(frozen=True)

    name: FileName
    n_rows: int
    n_bytes: int
    details: dict[str, Any] = Field(default_factory=dict)
    version: str | None = None

    @property
    def known(self) -> tuple[int, str] | None:
        """Size and version: what finds the node's copy without a request; None where the version is not known."""
        return None if self.version is None else (self.n_bytes, self.version)


class Manifest(BaseModel):
    """The table of contents of a finished artifact.

    Attributes:
        stage: name of the stage that wrote it.
        fingerprint: digest of inputs, config and format version.
        config: the stage's resolved config.
        inputs: fingerprint of each input by name.
        shards: files that hold rows, in row order.
        files: size in bytes of each other file that later stages rely on.
        properties: facts later stages rely on (dim, dtype, k, ...).
        metrics: what was measured while writing (seconds, recall, ...).
    """

    model_config = ConfigDict(frozen=True)

    stage: str
    fingerprint: str
    format_version: int = FORMAT_VERSION
    config: dict[str, Any] = Field(default_factory=dict)
    inputs: dict[str, str] = Field(default_factory=dict)
    shards: list[Shard] = Field(default_factory=list)
    files: dict[FileName, int] = Field(default_factory=dict)
    properties: dict[str, Any] = Field(default_factory=dict)
    metrics: dict[str, Any] = Field(default_factory=dict)

    @property
    def n_rows(self) -> int:
        """Rows of all shards together."""
        return sum(shard.n_rows for shard in self.shards)

    @property
    def shards_and_first_rows(self) -> list[tuple[Shard, int]]:
        """Each shard, and the number of its first row."""
        return list(zip(self.shards, first_rows(self.shards), strict=False))

    @functools.cached_property
    def n_bytes(self) -> dict[str, int]:
        """Size of each listed file by name."""
        return {shard.name: shard.n_bytes for shard in self.shards} | self.files


def first_rows(shards: Sequence[Shard]) -> list[int]:
    """Return the number of each shard's first row, and last how many rows there are: one number more than shards."""
    return list(itertools.accumulate((shard.n_rows for shard in shards), initial=0))


def fingerprint(stage: str, config: dict[str, Any], inputs: dict[str, str]) -> str:
    """Return the digest that decides whether a stage's output can be reused.

    Args:
        stage: name of the stage.
        config: every value that can change the output, JSON-serialisable.
        inputs: fingerprint of each input artifact or source by name.
    """
    text = json.dumps(
        {"stage": stage, "format": FORMAT_VERSION, "config": config, "inputs": inputs},
        sort_keys=True,
        default=str,
    )
    return hashlib.sha256(text.encode()).hexdigest()[:16]

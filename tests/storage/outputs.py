"""Small artifacts for tests: a stage with one number in its config, whose shards hold three bytes each."""

from __future__ import annotations

from pathlib import Path
from typing import IO

from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.artifact.manifest import fingerprint
from distspectral.storage.artifact.output import Output
from distspectral.storage.artifact.receipts import write_shard


def three_bytes(stream: IO[bytes]) -> int:
    """Write what every shard holds; three rows of one byte each."""
    return stream.write(b"abc")


def output(root: Path | str, value: int = 0) -> Output:
    """Return an output that no other number has."""
    config = {"value": value}
    return Output(Artifact(str(root)), "stage", fingerprint("stage", config, {}), config, {})


def finish(root: Path | str, value: int = 0) -> Output:
    """Return a finished output of the one shard ``a``."""
    out = output(root, value)
    out.begin()
    out.commit([write_shard(out.artifact, "a", three_bytes)], {}, {})
    return out

"""One output that several processes fill, each its part of the shards; who finds all of them done finishes it."""

from __future__ import annotations

from pyarrow import fs

from distspectral.errors import FingerprintMismatchError, MissingArtifactError, OutputNotWritableError
from distspectral.storage.artifact.directory import BUILDING, MANIFEST
from distspectral.storage.artifact.manifest import Shard
from distspectral.storage.artifact.output import Output


def join(output: Output) -> dict[str, Shard]:
    """Open the directory without disturbing others at work in it; return the shards done so far, by name.

    Raises:
        FingerprintMismatchError: another result stands there, or is being made.
        OutputNotWritableError: foreign files are there, or it cannot be written.
    """
    artifact = output.artifact
    try:
        return _joined(output)
    except OSError as error:
        raise OutputNotWritableError(f"{artifact.uri}: cannot be written ({error}); choose another output") from error


def _joined(output: Output) -> dict[str, Shard]:
    artifact = output.artifact
    entries = artifact.filesystem.get_file_info(fs.FileSelector(artifact.path, allow_not_found=True))
    names = {entry.base_name for entry in entries if not entry.base_name.startswith(".")}
    if MANIFEST in names and artifact.is_current(output.fingerprint):  # another process has just finished it
        return {shard.name: shard for shard in artifact.manifest().shards}
    if MANIFEST in names or (BUILDING in names and not _is_ours(output)):
        raise FingerprintMismatchError(
            f"{artifact.uri}: holds a result made from other inputs or another config, which processes that share the "
            "work do not remove; delete it, or give them another --output"
        )
    if names and BUILDING not in names:
        raise OutputNotWritableError(
            f"{artifact.uri}: holds files that distspectral did not write ({min(names)}, ...); choose another output"
        )
    artifact.filesystem.create_dir(artifact.path, recursive=True)
    if BUILDING not in names:
        artifact.write_json(BUILDING, {"stage": output.stage, "fingerprint": output.fingerprint})
    return artifact.receipts()


def _is_ours(output: Output) -> bool:
    try:
        return bool(output.artifact.read_json(BUILDING) == {"stage": output.stage, "fingerprint": output.fingerprint})
    except MissingArtifactError:  # finished since it was listed
        return True

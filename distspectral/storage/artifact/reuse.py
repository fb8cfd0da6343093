"""A finished artifact whose source has gained or lost shards: those that are still the same need not be made again."""

from __future__ import annotations

from collections.abc import Mapping

from pyarrow import fs

from distspectral.storage.artifact.directory import BUILDING, MANIFEST
from distspectral.storage.artifact.manifest import Shard, fingerprint
from distspectral.storage.artifact.output import Output
from distspectral.storage.source.quarantine import FOLDER, quarantine_files

SOURCE = "source"
"""The input whose shards are followed, and the detail of an output shard that says which of them it was made from."""


def begin(output: Output, sources: Mapping[str, str], details_file: str | None = None) -> dict[str, Shard]:
    """Open the directory like ``Output.begin``; shards of the finished artifact there may count as done.

    They do if the artifact differs from what is asked for in its source alone, and their source shard is still the
    same. One whose place in the order changed is renamed. Should this be interrupted, all is made again.

    Args:
        output: the result asked for.
        sources: fingerprint of the source shard that each output shard is made from, by the latter's name, in order.
        details_file: JSON file of the finished artifact that holds its shards' details; None: the manifest does.
    """
    kept = _reusable(output, sources, details_file)
    if kept:
        _keep(output, kept)
    return output.begin()


def _reusable(output: Output, sources: Mapping[str, str], details_file: str | None) -> dict[str, Shard]:
    """Return the shards, as they are called now, by the names that they shall have."""
    artifact = output.artifact
    if output.identity is None or not artifact.has(MANIFEST):
        return {}
    found = artifact.manifest()
    same = {name for name in found.inputs if name != SOURCE}
    if (
        found.fingerprint == output.fingerprint
        or found.fingerprint != fingerprint(output.stage, output.identity, found.inputs)
        or {name: found.inputs[name] for name in same} != {k: v for k, v in output.inputs.items() if k != SOURCE}
    ):
        return {}
    details = artifact.read_json(details_file) if details_file and artifact.has(details_file) else {}
    shards = [
        shard.model_copy(update={"details": shard.details | details.get(shard.name, {})}) for shard in found.shards
    ]
    infos = artifact.filesystem.get_file_info([artifact.file_path(shard.name) for shard in shards])
    whole = [
        shard
        for shard, info in zip(shards, infos, strict=True)
        if info.size == shard.n_bytes and SOURCE in shard.details
    ]
    by_source = {shard.details[SOURCE]: shard for shard in whole}
    if len(by_source) < len(whole):  # two source shards that nothing tells apart
        return {}
    return {name: by_source[source] for name, source in sources.items() if source in by_source}


def _keep(output: Output, kept: Mapping[str, Shard]) -> None:
    """Leave in the directory the kept shards under their new names, their receipts, and that this is being built."""
    artifact = output.artifact
    artifact.write_json(BUILDING, {})  # of nothing: whoever finds it so begins anew
    artifact.delete_file(MANIFEST)
    wanted = {shard.name for shard in kept.values()} | set(quarantine_files(list(kept.values())))
    entries = artifact.filesystem.get_file_info(fs.FileSelector(artifact.path, recursive=True))
    for entry in entries:
        name = entry.path[len(artifact.path) :].lstrip("/")
        if entry.type == fs.FileType.File and name not in wanted and name != BUILDING:
            artifact.filesystem.delete_file(entry.path)
    renamed = {
        old: new
        for name, shard in kept.items()
        for old, new in zip(_files(shard), _files(_renamed(shard, name)), strict=True)
        if old != new
    }
    for old, new in renamed.items():  # first aside: one's new name may be another's old one
        artifact.filesystem.move(artifact.file_path(old), artifact.file_path(f"{new}.moved"))
    for new in renamed.values():
        artifact.filesystem.move(artifact.file_path(f"{new}.moved"), artifact.file_path(new))
    for name, shard in kept.items():
        artifact.write_receipt(_renamed(shard, name))
    artifact.write_json(BUILDING, {"stage": output.stage, "fingerprint": output.fingerprint})


def _files(shard: Shard) -> tuple[str, ...]:
    return shard.name, *quarantine_files([shard])


def _renamed(shard: Shard, name: str) -> Shard:
    details = dict(shard.details)
    if "quarantine" in details:
        details["quarantine"] = f"{FOLDER}/{name.rpartition('.')[0]}.parquet"
    return shard.model_copy(update={"name": name, "details": details})

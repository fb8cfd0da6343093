"""Where a stage writes: one way to open the directory, whatever stands there, and the manifest that finishes it."""

from __future__ import annotations

import contextlib
import dataclasses
import fnmatch
import logging
import posixpath
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pyarrow import fs

from distspectral.errors import (
    DamagedArtifactError,
    FingerprintMismatchError,
    MissingArtifactError,
    OutputNotWritableError,
)
from distspectral.storage.artifact.atomic import TEMPORARY
from distspectral.storage.artifact.differences import in_words, setting_differences
from distspectral.storage.artifact.directory import MANIFEST, Artifact
from distspectral.storage.artifact.holding import HOLDERS
from distspectral.storage.artifact.manifest import Manifest, Shard, fingerprint
from distspectral.storage.artifact.quarantine import quarantine_files, renamed
from distspectral.storage.artifact.receipts import RECEIPTS, read_receipts, write_receipt

logger = logging.getLogger(__name__)

BUILDING = ".building.json"
"""Stands from the first file to the manifest, and says what is being made; of nothing while a directory is cleared."""

CONFIG = ".config.yaml"
"""The settings of the stage, resolved."""

SOURCE = "source"
"""The input whose shards are followed, and the detail of an output shard that says which of them it was made from."""


@dataclasses.dataclass(frozen=True)
class Output:
    """Where a stage writes and what identifies the result; handed to every stage function.

    Attributes:
        artifact: the directory to write.
        stage: the stage's name.
        fingerprint: digest of ``config`` and ``inputs``; of :func:`distspectral.storage.artifact.manifest.fingerprint`.
        config: the stage's resolved config as plain values.
        inputs: fingerprint of each input by name.
        identity: what of the config is in the fingerprint; without it no shard of a finished artifact can be kept.
    """

    artifact: Artifact
    stage: str
    fingerprint: str
    config: dict[str, Any]
    inputs: dict[str, str]
    identity: dict[str, Any] | None = None

    def begin(
        self, sources: Mapping[str, str] | None = None, details_file: str | None = None, *, shared: bool = False
    ) -> dict[str, Shard]:
        """Open the directory, write the resolved config, return the shards that need not be made, by name.

        These are the ones an interrupted run left done. What another result left is removed first, and only if it is
        an artifact of ours. Given ``sources``, shards of a finished artifact stay if it differs from what is asked for
        in its source alone and their source shard is still the same; one whose place in the order changed is renamed.
        Should that be interrupted, all is made again.

        Args:
            sources: fingerprint of the source shard that each output shard is made from, by the latter's name, in
                order; None follows no source.
            details_file: JSON file of the finished artifact that holds its shards' details; None: the manifest does.
            shared: whether other processes fill the directory, too. Nothing is then removed or renamed, a result that
                another process has finished counts as done, and whoever finds all shards done finishes it.

        Raises:
            OutputNotWritableError: the directory cannot be made or written, or holds foreign files.
            FingerprintMismatchError: it is shared, and another result stands there or is being made.
        """
        artifact = self.artifact
        try:
            if not shared:
                self.forget_damaged()
            standing = self._standing()
            if shared:
                self._refuse_another(standing)
            else:
                self._take_over(standing, sources, details_file)
            if not (shared and MANIFEST in standing):  # a result finished by others is left as it is
                artifact.filesystem.create_dir(artifact.path, recursive=True)
                if not (shared and standing):
                    artifact.write_json(BUILDING, self._mark)
                artifact.write_bytes(CONFIG, yaml.safe_dump({self.stage: self.config}, sort_keys=False).encode())
        except OSError as error:
            message = f"{artifact.uri}: cannot be written ({error}); choose another place"
            raise OutputNotWritableError(message) from error
        done = read_receipts(artifact)
        if shared and artifact.is_current(self.fingerprint):  # who finished it has tidied the receipts away
            return {shard.name: shard for shard in artifact.manifest().shards}
        return done

    def commit(
        self, shards: list[Shard], properties: dict[str, Any], metrics: dict[str, Any], files: Sequence[str] = ()
    ) -> Manifest:
        """Write the manifest, which declares the artifact finished, and tidy up what led to it.

        Args:
            shards: in row order.
            properties: facts that later stages rely on.
            metrics: what was measured.
            files: names of others that later stages rely on.
        """
        artifact = self.artifact
        manifest = Manifest(
            stage=self.stage,
            fingerprint=self.fingerprint,
            config=self.config,
            inputs=self.inputs,
            shards=shards,
            files=artifact.sizes(files),
            properties=properties,
            metrics=metrics,
        )
        artifact.write_json(MANIFEST, manifest.model_dump())
        with contextlib.suppress(OSError):
            artifact.filesystem.delete_dir(artifact.file_path(RECEIPTS))
        with contextlib.suppress(OSError):
            artifact.delete_file(BUILDING)
        return manifest

    def forget_damaged(self) -> None:
        """Declare this result unfinished, should it stand here damaged, and say what is: it is then made again."""
        try:
            self.artifact.require(self.fingerprint)
        except DamagedArtifactError as error:
            logger.warning("%s; the stage `%s` runs again", str(error).partition(";")[0], self.stage)
            self.artifact.write_json(BUILDING, {})
            self.artifact.delete_file(MANIFEST)
        except (MissingArtifactError, FingerprintMismatchError):
            pass

    def differences(self, found: Manifest) -> list[str]:
        """Return the settings that tell a finished result from this one, with both their values."""
        return list(setting_differences(self.identity or {}, self.config, found.config))

    def other_inputs(self, found: Manifest) -> list[str]:
        """Return the names of the inputs that a finished result has others of."""
        return [name for name, made_from in self.inputs.items() if found.inputs.get(name) != made_from]

    # ---- what stands in the directory --------------------------------------------------------------------------

    @property
    def _mark(self) -> dict[str, str]:
        return {"stage": self.stage, "fingerprint": self.fingerprint}

    def _standing(self) -> set[str]:
        """Return the names of what stands in the directory, files in the making left out; nothing or an artifact.

        Raises:
            OutputNotWritableError: it is neither.
        """
        artifact = self.artifact
        if artifact.filesystem.get_file_info(artifact.path).type == fs.FileType.File:
            raise OutputNotWritableError(f"{artifact.uri}: is a file; choose another place")
        names = {entry.base_name for entry in artifact.entries()}
        names = {name for name in names if name != HOLDERS and not fnmatch.fnmatchcase(name, TEMPORARY)}
        if names and not names & {MANIFEST, BUILDING}:
            raise OutputNotWritableError(
                f"{artifact.uri}: holds files that distspectral did not write ({min(names)}, ...); choose another place"
            )
        return names

    def _is_begun(self) -> bool:
        """Whether what is being made in the directory, if anything, is this result."""
        try:
            return bool(self.artifact.read_json(BUILDING) == self._mark)
        except MissingArtifactError:  # nothing is; or another process has finished since
            return True
        except ValueError:  # cut off
            return False

    def _refuse_another(self, standing: set[str]) -> None:
        """Raise FingerprintMismatchError where another result stands in the directory, or is being made."""
        finished = MANIFEST in standing
        if not (self.artifact.is_current(self.fingerprint) if finished else self._is_begun()):
            told = ""
            if finished:
                found = self.artifact.manifest()
                told = in_words([*self.differences(found), *(f"another {one}" for one in self.other_inputs(found))])
            raise FingerprintMismatchError(
                f"{self.artifact.uri}: holds a result made from other inputs or another config"
                f"{f' ({told})' if told else ''}, which processes that share the work do not remove; delete it, or "
                "give them another place"
            )

    # ---- making room -------------------------------------------------------------------------------------------

    def _take_over(self, standing: set[str], sources: Mapping[str, str] | None, details_file: str | None) -> None:
        """Leave in the directory only what an interrupted run left of this result, or what can be kept of another."""
        if self.artifact.is_local:  # a writer that was killed leaves temporary files
            for left_over in Path(self.artifact.path).rglob(TEMPORARY):
                if left_over.parent.name != HOLDERS:  # a lease in the making
                    left_over.unlink(missing_ok=True)
        if MANIFEST in standing:
            kept = self._unchanged(sources or {}, details_file)
            self._clear(kept)
            self._rename(kept)
        elif not self._is_begun():
            self._clear({})

    def _unchanged(self, sources: Mapping[str, str], details_file: str | None) -> dict[str, Shard]:
        """Return the finished artifact's shards, as they are called now, by the names that they shall have."""
        artifact = self.artifact
        if self.identity is None or not sources:
            return {}
        found = artifact.manifest()
        if (
            found.fingerprint == self.fingerprint
            or found.fingerprint != fingerprint(self.stage, self.identity, found.inputs)
            or found.inputs | {SOURCE: ""} != self.inputs | {SOURCE: ""}
        ):
            return {}
        details: dict[str, Any] = {}
        if details_file and artifact.has(details_file):
            try:
                details = artifact.read_json(details_file)
            except ValueError:  # damaged
                return {}
        shards = [
            shard.model_copy(update={"details": details.get(shard.name, {}) | shard.details}) for shard in found.shards
        ]
        sizes = artifact.sizes([shard.name for shard in shards])
        whole = [shard for shard in shards if sizes[shard.name] == shard.n_bytes and SOURCE in shard.details]
        by_source = {shard.details[SOURCE]: shard for shard in whole}
        if len(by_source) < len(whole):  # two source shards that nothing tells apart
            return {}
        times = Counter(sources.values())
        return {name: by_source[one] for name, one in sources.items() if times[one] == 1 and one in by_source}

    def _clear(self, kept: Mapping[str, Shard]) -> None:
        """Remove all but the kept shards; interrupted, it leaves a directory of ours in which all is made again."""
        artifact = self.artifact
        artifact.write_json(BUILDING, {})
        artifact.delete_file(MANIFEST)  # first, so that a crash in here never leaves a manifest without its shards
        names = {BUILDING, HOLDERS, *(file for shard in kept.values() for file in _files(shard))}
        folders = {posixpath.dirname(name) for name in names}
        for folder in folders:
            for entry in artifact.entries(folder):
                if posixpath.join(folder, entry.base_name) in names | folders:
                    continue
                if entry.type == fs.FileType.Directory:
                    artifact.filesystem.delete_dir(entry.path)
                else:
                    artifact.filesystem.delete_file(entry.path)

    def _rename(self, kept: Mapping[str, Shard]) -> None:
        """Give the kept shards their new names, and receipts."""
        artifact = self.artifact
        receipts = [renamed(shard, name) for name, shard in kept.items()]
        moves = {
            old: new
            for shard, receipt in zip(kept.values(), receipts, strict=True)
            for old, new in zip(_files(shard), _files(receipt), strict=True)
            if old != new
        }
        for old, new in moves.items():  # first aside: one's new name may be another's old one
            artifact.filesystem.move(artifact.file_path(old), artifact.file_path(f"{new}.moved"))
        for new in moves.values():
            artifact.filesystem.move(artifact.file_path(f"{new}.moved"), artifact.file_path(new))
        for receipt in receipts:
            write_receipt(artifact, receipt)


def _files(shard: Shard) -> tuple[str, ...]:
    return shard.name, *quarantine_files([shard])

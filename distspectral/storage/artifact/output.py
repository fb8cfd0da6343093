"""Where a stage writes, what identifies the result, and the manifest that says so."""

from __future__ import annotations

import dataclasses
from typing import Any

import yaml

from distspectral.storage.artifact.directory import Artifact, void
from distspectral.storage.artifact.manifest import Manifest, Shard


@dataclasses.dataclass(frozen=True)
class Output:
    """Where a stage writes and what identifies the result; handed to every stage function.

    Attributes:
        artifact: the directory to write.
        stage: the stage's name.
        fingerprint: digest of ``config`` and ``inputs``; of :func:`distspectral.storage.artifact.manifest.fingerprint`.
        config: the stage's resolved config as plain values.
        inputs: fingerprint of each input by name.
        identity: what of the config is in the fingerprint; None where nobody asks.
    """

    artifact: Artifact
    stage: str
    fingerprint: str
    config: dict[str, Any]
    inputs: dict[str, str]
    identity: dict[str, Any] | None = None

    def begin(self) -> dict[str, Shard]:
        """Open the directory, write the resolved config, return the shards an interrupted run left done."""
        done = self.artifact.begin(self.stage, self.fingerprint)
        self.write_config()
        return done

    def write_config(self) -> None:
        """Write the resolved config beside the shards."""
        text = yaml.safe_dump({self.stage: self.config}, sort_keys=False)
        self.artifact.write_file("config.yaml", lambda stream: void(stream.write(text.encode())))

    def commit(
        self, shards: list[Shard], properties: dict[str, Any], metrics: dict[str, Any], files: tuple[str, ...] = ()
    ) -> Manifest:
        """Write the manifest; ``shards`` are in row order, ``files`` are others that later stages rely on."""
        infos = self.artifact.filesystem.get_file_info([self.artifact.file_path(name) for name in files])
        return self.artifact.commit(
            Manifest(
                stage=self.stage,
                fingerprint=self.fingerprint,
                config=self.config,
                inputs=self.inputs,
                shards=shards,
                files={name: info.size for name, info in zip(files, infos, strict=True)},
                properties=properties,
                metrics=metrics,
            )
        )

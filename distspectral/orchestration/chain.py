"""The stages of one run in order: where each writes and what identifies its result.

All fingerprints come from the config and the source's fingerprint alone, so it is known before anything runs
which artifacts are still good. Values that change no more than the rounding of a result (devices, workers,
intervals of checkpoints) are left out of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from distspectral.errors import FingerprintMismatchError
from distspectral.recipes import Recipe
from distspectral.stages import stages_of
from distspectral.stages.finished_run import require_source
from distspectral.stages.pack import PACK
from distspectral.stages.stage import Stage
from distspectral.storage.artifact.differences import in_words
from distspectral.storage.artifact.directory import MANIFEST, Artifact
from distspectral.storage.artifact.manifest import Manifest, fingerprint
from distspectral.storage.artifact.output import SOURCE, Output

Settings = Mapping[str, BaseModel | int]


@dataclasses.dataclass(frozen=True)
class Chain:
    """The stages of one run.

    Attributes:
        root: the run's directory.
        source: fingerprint of the source.
        outputs: by stage name, in the order of the run.
        stages: likewise.
    """

    root: Artifact
    source: str
    outputs: Mapping[str, Output]
    stages: Mapping[str, Stage]

    @classmethod
    def of(cls, recipe: Recipe, root: Artifact, source: str, settings: Settings, starts: Mapping[str, str]) -> Chain:
        """Return the chain of a run; nothing is read or written.

        Args:
            recipe: which stages, and what they read.
            root: the run's directory.
            source: fingerprint of the source.
            settings: sections of the config by name; of stages that train, their settings.
            starts: fingerprints of what stages take from another run, weights or clusters, or from files beside the
                source, by stage.
        """
        prints, outputs = {SOURCE: source}, {}
        stages = {stage.name: stage for stage in stages_of(recipe)}
        for name, stage in stages.items():
            config, identity = _told(stage, settings)
            if name in starts:  # whatever becomes of that run, and wherever it lies
                identity[name] = identity.get(name, {}) | {"start_from": starts[name]}
            inputs = {read: prints[read] for read in stage.inputs(recipe)}
            prints[name] = fingerprint(name, identity, inputs)
            outputs[name] = Output(root.child(stage.folder), name, prints[name], config, inputs, identity)
        return cls(root, source, outputs, stages)

    @classmethod
    def standing(cls, recipe: Recipe, root: Artifact, settings: Settings) -> Chain:
        """Return the chain of a finished run as its manifests tell it, whatever has become of its data and config.

        Of the last stage that rows pass, the output is the one that this config asks for, whatever stands there.

        Args:
            recipe: which stages, and what they read.
            root: the run's directory.
            settings: see :meth:`of`.

        Raises:
            MissingArtifactError: the run packed no vectors.
            FingerprintMismatchError: an artifact was made from another one than the one that stands there.
        """
        source = root.child(PACK.folder).manifest().inputs[SOURCE]
        prints = {SOURCE: source}
        outputs: dict[str, Output] = {}
        stages = {stage.name: stage for stage in stages_of(recipe)}
        for name, stage in stages.items():
            artifact = root.child(stage.folder)
            config, identity = _told(stage, settings)
            inputs = {read: prints[read] for read in stage.inputs(recipe)}
            prints[name] = fingerprint(name, identity, inputs)
            if name != recipe.passage[-1] and artifact.has(MANIFEST):
                found = artifact.manifest()
                prints[name] = found.fingerprint
                for read, made_from in found.inputs.items():
                    if read == recipe.passage[-1] or read not in outputs:
                        continue
                    if outputs[read].artifact.has(MANIFEST):
                        require_source(artifact, made_from, outputs[read].artifact, prints[read])
            outputs[name] = Output(artifact, name, prints[name], config, inputs, identity)
        return cls(root, source, outputs, stages)

    @property
    def last(self) -> Output:
        """Output of the last stage; its fingerprint follows from all others."""
        return list(self.outputs.values())[-1]

    @property
    def artifacts(self) -> dict[str, Artifact]:
        """The directory that each stage writes, by its name."""
        return {name: output.artifact for name, output in self.outputs.items()}

    def artifact(self, stage: str) -> Artifact:
        """Return the directory that a stage writes."""
        return self.outputs[stage].artifact

    def require(self, stage: str) -> Manifest:
        """Return the manifest of a finished, undamaged artifact of this chain.

        Raises:
            MissingArtifactError, DamagedArtifactError: see :meth:`Artifact.require`.
            FingerprintMismatchError: it was made by other settings, which the message names, or from other rows.
        """
        output = self.outputs[stage]
        try:
            return output.artifact.require(output.fingerprint)
        except FingerprintMismatchError as error:
            told = in_words(self._differences(stage))
            raise FingerprintMismatchError(
                f"{output.artifact.uri}: made from other inputs or another config"
                f"{f' ({told})' if told else ''}; run the stage `{stage}` again"
            ) from error

    def _differences(self, stage: str) -> list[str]:
        """Return what tells the artifact that stands from the one asked for, through all that it was made from."""
        output = self.outputs[stage]
        found = output.artifact.manifest()
        told = output.differences(found)
        for name in output.other_inputs(found):
            if name == SOURCE:
                told.append("other rows, or another section data")
            else:
                told += self._differences(name) if self._stands(name, found.inputs.get(name)) else [f"another {name}"]
        return told

    def _stands(self, stage: str, fingerprint: str | None) -> bool:
        artifact = self.outputs[stage].artifact
        return artifact.has(MANIFEST) and artifact.manifest().fingerprint == fingerprint

    def inputs(self, stage: str) -> tuple[str, ...]:
        """Return the names of the stages that a stage reads."""
        return tuple(name for name in self.outputs[stage].inputs if name != SOURCE)

    def of_other_rows(self, stage: str, inputs: Mapping[str, str], directory: Artifact) -> Output:
        """Return the output of a stage on other rows, by this run's model.

        Args:
            stage: that reads the rows.
            inputs: fingerprints of the inputs that are not this run's own.
            directory: where it goes.
        """
        own = self.outputs[stage]
        all_inputs = {name: inputs.get(name, print_) for name, print_ in own.inputs.items()}
        return dataclasses.replace(
            own,
            artifact=directory,
            inputs=all_inputs,
            fingerprint=fingerprint(stage, own.identity or {}, all_inputs),
        )


def _told(stage: Stage, settings: Settings) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what a stage is told, and what of it identifies the result."""
    parts = {key: _pick(settings, key) for key in stage.sections}
    config: dict[str, Any] = {}
    for key, part in parts.items():
        config |= part if isinstance(part, dict) else {key.rpartition(".")[2]: part}
    return config, {key: _without(part, key, stage.harmless) for key, part in parts.items()}


def _pick(settings: Settings, key: str) -> Any:
    """Return the plain value under a dotted key."""
    name, *inner = key.split(".")
    value: Any = settings[name]
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    for part in inner:
        value = value[part]
    return value


def _without(value: Any, key: str, excluded: tuple[str, ...]) -> Any:
    """Return a copy of nested values lacking the excluded dotted keys."""
    if not isinstance(value, dict):
        return value
    return {
        name: _without(inner, f"{key}.{name}", excluded)
        for name, inner in value.items()
        if f"{key}.{name}" not in excluded
    }

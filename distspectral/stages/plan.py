"""The chain of stages: which artifact each writes, what can change it, and the fingerprints that follow.

All fingerprints come from the config and the source's fingerprint alone, so it is known before anything runs
which artifacts are still good. Values that cannot change a result (devices, workers, intervals of checkpoints)
are left out of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from distspectral.storage.artifacts import Artifact, Output
from distspectral.storage.manifest import fingerprint

SOURCE = "source"


@dataclasses.dataclass(frozen=True)
class Step:
    """One link of the chain.

    Attributes:
        directory: artifact under the run's root.
        inputs: names of the stages (or ``source``) it reads, by the role they play.
        sections: parts of the settings that can change its result, as dotted keys.
        excluded: dotted keys within them that cannot.
    """

    directory: str
    inputs: tuple[str, ...]
    sections: tuple[str, ...]
    excluded: tuple[str, ...] = ()


CHAIN: Mapping[str, Step] = {
    "pack": Step("vectors", (SOURCE,), ("pack",)),
    "neighbors": Step("neighbors", ("pack",), ("graph",), ("graph.device",)),
    "graph": Step("graph", ("neighbors",), ("affinity",), ("affinity.scope",)),
    "train": Step(
        "training", ("pack", "graph"), ("training",), ("training.train.device", "training.train.checkpoint_steps")
    ),
    "calibrate": Step("model", ("pack", "graph", "train"), ("training.n_components",)),
    "cluster": Step("clusters", ("pack", "calibrate"), ("cluster", "seed")),
    "embed": Step("output", (SOURCE, "calibrate", "cluster"), ("embed",), ("embed.batch_rows",)),
}
"""Stages in the order of a run."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """Where every stage writes and what identifies its result.

    Attributes:
        root: the run's directory.
        source: fingerprint of the source.
        outputs: by stage name, in the order of the run.
        embed_identity: what of the config is in the fingerprint of the stage ``embed``.
    """

    root: Artifact
    source: str
    outputs: Mapping[str, Output]
    embed_identity: Mapping[str, Any]

    def artifact(self, stage: str) -> Artifact:
        """Return the directory that a stage writes."""
        return self.outputs[stage].artifact

    def inputs(self, stage: str) -> tuple[str, ...]:
        """Return the names of the stages that a stage reads."""
        return tuple(name for name in CHAIN[stage].inputs if name != SOURCE)

    def embedding_of(self, source: str, directory: Artifact) -> Output:
        """Return the output of embedding other rows with this plan's model.

        Args:
            source: fingerprint of the other rows.
            directory: where they go.
        """
        planned = self.outputs["embed"]
        inputs = {**planned.inputs, SOURCE: source}
        return dataclasses.replace(
            planned,
            artifact=directory,
            inputs=inputs,
            fingerprint=fingerprint("embed", dict(self.embed_identity), inputs),
        )


def make_plan(root: Artifact, source: str, settings: Mapping[str, BaseModel | int]) -> Plan:
    """Return the plan of a run; nothing is read or written.

    Args:
        root: the run's directory.
        source: fingerprint of the source.
        settings: ``pack``, ``graph``, ``affinity``, ``training`` (``TrainSettings``), ``cluster``, ``embed``
            and ``seed``.
    """
    values = {name: _plain(value) for name, value in settings.items()}
    prints = {SOURCE: source}
    outputs: dict[str, Output] = {}
    identity: dict[str, Any] = {}
    for stage, step in CHAIN.items():
        parts = {key: _pick(values, key) for key in step.sections}
        config: dict[str, Any] = {}
        for key, part in parts.items():
            config |= part if isinstance(part, dict) else {key.rpartition(".")[2]: part}
        identity = {key: _without(part, key, step.excluded) for key, part in parts.items()}
        inputs = {name: prints[name] for name in step.inputs}
        prints[stage] = fingerprint(stage, identity, inputs)
        outputs[stage] = Output(root.child(step.directory), stage, prints[stage], config, inputs)
    return Plan(root, source, outputs, identity)  # the last stage is embed


def _plain(value: BaseModel | int) -> Any:
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else value


def _pick(values: Mapping[str, Any], key: str) -> Any:
    for part in key.split("."):
        values = values[part]
    return values


def _without(value: Any, key: str, excluded: tuple[str, ...]) -> Any:
    """Return a copy of nested values lacking the excluded dotted keys."""
    if not isinstance(value, dict):
        return value
    return {
        name: _without(inner, f"{key}.{name}", excluded)
        for name, inner in value.items()
        if f"{key}.{name}" not in excluded
    }

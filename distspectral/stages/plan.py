"""Chains of stages: which artifact each writes, what can change it, and the fingerprints that follow.

All fingerprints come from the config and the source's fingerprint alone, so it is known before anything runs
which artifacts are still good. Values that cannot change a result (devices, workers, intervals of checkpoints)
are left out of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from pydantic import BaseModel

from distspectral.graph.config import AffinitySpace
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.artifact.manifest import fingerprint
from distspectral.storage.artifact.output import Output
from distspectral.training.siamese import SiameseUse

SOURCE = "source"
Objective = Literal["spectral", "dscl"]
Representation = Literal["input", "code", "auto"]


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


def embedded_graph(stages: Iterable[str]) -> str:
    """Return which of the stages writes the graph that is embedded, the last one that writes any."""
    names = set(stages)
    return next(stage for stage in ("reweight", "siamese_graph", "graph") if stage in names)


PACK = Step("vectors", (SOURCE,), ("pack",))


def trained(directory: str, inputs: tuple[str, ...], section: str, *excluded: str) -> Step:
    """Return a step of training, whose device and checkpoints change nothing."""
    harmless = ("device", "checkpoint_steps", "keep_checkpoints", "max_skipped_steps")
    keys = (*(f"train.{key}" for key in harmless), *excluded)
    return Step(directory, inputs, (section,), tuple(f"{section}.{key}" for key in keys))


def spectral_chain(
    representation: Representation = "input", space: AffinitySpace = "euclidean", use: SiameseUse = "reweight"
) -> dict[str, Step]:
    """Return the stages of a spectral run, in order.

    Args:
        representation: what neighbours are searched in.
        space: whose distances weigh the edges.
        use: what Siamese distances are for.
    """
    chain: dict[str, Step] = {"pack": PACK}
    rows: tuple[str, ...] = ("pack",)
    if representation != "input":
        chain["autoencoder"] = trained("autoencoder", ("pack",), "autoencoder")
        chain["codes"] = Step("codes", ("pack", "autoencoder"), ())
        rows = ("codes",)
    if representation == "auto":
        rows = ("pack", "codes")
    search, weigh = (("graph",), ("graph.device",)), (("affinity",), ("affinity.scope", "affinity.space"))
    chain["neighbors"] = Step("neighbors", rows, *search)
    chain["graph"] = Step("graph", ("neighbors",), *weigh)
    seen, graph = tuple(dict.fromkeys(("pack", *rows))), "graph"
    if space == "siamese":
        chain["siamese"] = trained("siamese", (*rows, "graph"), "siamese", "train.use")
        chain["features"] = Step("features", (*rows, "siamese"), ())
        seen = (*seen, "features")
        if use == "reweight":
            graph = "reweight"
            chain[graph] = Step("siamese-graph", ("graph", "features"), ())
        else:
            graph = "siamese_graph"
            chain["siamese_neighbors"] = Step("siamese-neighbors", ("features",), *search)
            chain[graph] = Step("siamese-graph", ("siamese_neighbors",), *weigh)
    chain["train"] = trained("training", (*seen, graph), "training")
    chain["calibrate"] = Step("model", (*seen, graph, "train"), ("training.n_components",))
    chain["cluster"] = Step("clusters", ("pack", "calibrate"), ("cluster", "seed"))
    chain["embed"] = Step(
        "output", (SOURCE, "calibrate", "cluster"), ("embed",), ("embed.batch_rows", "embed.drift_rows")
    )
    return chain


METRIC_CHAIN: Mapping[str, Step] = {
    "pack": PACK,
    "train": trained("training", ("pack",), "training", "dscl.whiten"),
    "encode": Step("embedding", ("pack", "train"), ("training.dscl.whiten",)),
    "evaluate": Step("evaluation", ("encode",), ("evaluate", "seed"), ("evaluate.device",)),
}
"""Stages of a run of objective ``dscl``, in order."""

DIRECTORIES = tuple(
    dict.fromkeys(
        step.directory
        for chain in (spectral_chain("auto", "siamese"), spectral_chain("auto", "siamese", "rebuild"), METRIC_CHAIN)
        for step in chain.values()
    )
)
"""Of every artifact that a run can hold."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """Where every stage writes and what identifies its result.

    Attributes:
        root: the run's directory.
        source: fingerprint of the source.
        outputs: by stage name, in the order of the run.
        chain: the stages.
    """

    root: Artifact
    source: str
    outputs: Mapping[str, Output]
    chain: Mapping[str, Step]

    @property
    def graph(self) -> str:
        """Name of the stage whose graph is embedded."""
        return embedded_graph(self.chain)

    @property
    def last(self) -> Output:
        """Output of the last stage; its fingerprint follows from all others."""
        return list(self.outputs.values())[-1]

    def artifact(self, stage: str) -> Artifact:
        """Return the directory that a stage writes."""
        return self.outputs[stage].artifact

    def inputs(self, stage: str) -> tuple[str, ...]:
        """Return the names of the stages that a stage reads."""
        return tuple(name for name in self.chain[stage].inputs if name != SOURCE)

    def of_other_rows(self, stage: str, inputs: Mapping[str, str], directory: Artifact) -> Output:
        """Return the output of a stage on other rows, by this plan's model.

        Args:
            stage: that reads the rows.
            inputs: fingerprints of the inputs that are not this plan's own.
            directory: where it goes.
        """
        planned = self.outputs[stage]
        all_inputs = {**planned.inputs, **inputs}
        return dataclasses.replace(
            planned,
            artifact=directory,
            inputs=all_inputs,
            fingerprint=fingerprint(stage, planned.identity or {}, all_inputs),
        )


def make_plan(root: Artifact, source: str, settings: Mapping[str, BaseModel | int], chain: Mapping[str, Step]) -> Plan:
    """Return the plan of a run; nothing is read or written.

    Args:
        root: the run's directory.
        source: fingerprint of the source.
        settings: ``pack``, ``autoencoder``, ``graph``, ``affinity``, ``siamese``, ``training`` (all trained ones as
            ``TrainSettings``), ``cluster``, ``embed``, ``evaluate`` and ``seed``, as far as the chain uses them.
        chain: the stages, in order.
    """
    values = {name: _plain(value) for name, value in settings.items()}
    prints = {SOURCE: source}
    outputs: dict[str, Output] = {}
    for stage, step in chain.items():
        parts = {key: _pick(values, key) for key in step.sections}
        config: dict[str, Any] = {}
        for key, part in parts.items():
            config |= part if isinstance(part, dict) else {key.rpartition(".")[2]: part}
        identity = {key: _without(part, key, step.excluded) for key, part in parts.items()}
        inputs = {name: prints[name] for name in step.inputs}
        prints[stage] = fingerprint(stage, identity, inputs)
        outputs[stage] = Output(root.child(step.directory), stage, prints[stage], config, inputs, identity)
    return Plan(root, source, outputs, chain)


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

"""What a stage is: one declaration, from which commands, fingerprints, resources, plans and reports follow.

A stage is a pure function of its inputs and its part of the config that writes one artifact. Its module ends with the
declaration; nothing else in the package knows it by name, except the recipe that puts it into a chain.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal

from distspectral.costs.bill import Bill
from distspectral.costs.training import training
from distspectral.mapping import Mapper
from distspectral.recipes import Recipe, SpectralRecipe
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.artifact.manifest import Manifest
from distspectral.storage.artifact.output import Output
from distspectral.storage.source.dataset import Source
from distspectral.training.drawing import draw, wants_batches
from distspectral.training.settings import TrainSettings

Workers = Literal["tasks", "actors", "training", "driver"]
Manifests = Mapping[str, Manifest]
"""Of a finished run, by stage."""


@dataclasses.dataclass(frozen=True)
class Work:
    """What a stage is run with.

    Attributes:
        recipe: of the run, knowing what the artifacts tell.
        settings: sections of the config by name; of a stage that trains, its ``TrainSettings``.
        artifacts: what every stage of the run writes, by its name.
        output: where this one writes.
        source: the rows that are packed or embedded.
        mapper: hands out items, to the workers that the stage asks for.
        train: trains on (vectors, graph) and writes the output.
        trained_on: the vectors trained on, where the source's rows are others.
    """

    recipe: Recipe
    settings: Mapping[str, Any]
    artifacts: Mapping[str, Artifact]
    output: Output
    source: Source
    mapper: Mapper
    train: Callable[[tuple[Artifact, ...], Artifact | None, Output, TrainSettings], Manifest]
    trained_on: Artifact | None = None

    @property
    def spectral(self) -> SpectralRecipe:
        """The recipe, in stages that runs of its kind alone have."""
        assert isinstance(self.recipe, SpectralRecipe), f"the stage is none of objective {self.recipe.kind}"
        return self.recipe

    @property
    def seen(self) -> tuple[Artifact, ...]:
        """What the trained network sees, side by side."""
        return tuple(self.artifacts[stage] for stage in self.recipe.seen.values())

    @property
    def graph(self) -> Artifact:
        """The graph trained on, of a recipe that has one."""
        stage = self.recipe.embedded_graph
        assert stage is not None, f"a run of objective {self.recipe.kind} has no graph"
        return self.artifacts[stage]

    def learned_from(self, stage: str) -> tuple[tuple[Artifact, ...], Artifact | None]:
        """Return what a stage that trains reads: vectors side by side, and the graph, None where there is none."""
        seen, graph = self.recipe.learns_from[stage]
        return tuple(self.artifacts[name] for name in seen), None if graph is None else self.artifacts[graph]

    def training_of(self, stage: str) -> TrainSettings:
        """Return the settings of a stage that trains, complete with where the networks lie that it is trained upon."""
        settings: TrainSettings = self.settings[stage]
        return settings.upon(self.artifacts)


@dataclasses.dataclass(frozen=True)
class Piece:
    """A part of a finished stage's work that can be timed by itself.

    Attributes:
        run: does it once more and writes nothing.
        n_rows: that it does it for.
    """

    run: Callable[[], object]
    n_rows: int


@dataclasses.dataclass(frozen=True)
class Unfinished:
    """An output that lacks shards which other processes are to write.

    Attributes:
        n_done: shards that stand, whoever wrote them.
        n_shards: shards there will be.
        metrics: of what this call embedded.
    """

    n_done: int
    n_shards: int
    metrics: dict[str, Any]


def nothing(_: Any) -> Any:
    """Return an empty mapping, as a stage does that has nothing to tell."""
    return {}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage.

    Attributes:
        name: the one word for it, in chains, commands, ``ray.resources`` and messages.
        folder: of its artifact, under the run's root.
        purpose: what it does, as a command's help says it.
        done: the same in the past tense, for progress.
        inputs: stages that a recipe makes it read, and ``source``, by the role they play.
        run: does the work.
        cost: fills in what that takes: time by resource, memory, bytes.
        pieces: parts of the work that the cost needs and no kind of task stands for, by name; timed on a sample.
        run_part: does it for some of the source's shards; None where it cannot be shared among processes.
        sections: of the config, those that can change the result, as dotted keys.
        harmless: dotted keys within them that cannot.
        workers: what the work is handed to: ``tasks``, ``actors`` that keep a model where bounds or GPUs ask for them,
            a group of ``training`` workers, or nobody beside the ``driver``.
        facts: its part of ``metrics.json``, by name, from all manifests.
        lines: of those facts, the rows of the table that ends a run: heading and text.
        notes: sentences of a report on what of these metrics a reader should mend, with the remedy.
    """

    name: str
    folder: str
    purpose: str
    done: str
    inputs: Callable[[Any], tuple[str, ...]]
    run: Callable[[Work], Manifest]
    cost: Callable[[Bill], None]
    pieces: Callable[[Work], Mapping[str, Piece]] = nothing
    run_part: Callable[[Work, range], Manifest | Unfinished] | None = None
    sections: tuple[str, ...] = ()
    harmless: tuple[str, ...] = ()
    workers: Workers = "driver"
    facts: Callable[[Manifests], dict[str, Any]] = nothing
    lines: Callable[[dict[str, Any]], dict[str, str]] = nothing
    notes: Callable[[dict[str, Any]], list[str]] = lambda metrics: []

    @property
    def trains(self) -> bool:
        """Whether it is the work of a group of training workers."""
        return self.workers == "training"


TRAINING_ONLY = ("device", "checkpoint_steps", "keep_checkpoints", "max_skipped_steps")
"""Of any section of training: what changes no result."""


def training_stage(name: str, **declared: Any) -> Stage:
    """Return a stage that trains by the settings of its name on what the recipe lets it learn from.

    What those sections hold beside ``train`` may be added to what is harmless.

    Args:
        name: of the stage and of its settings.
        declared: the rest of the declaration.
    """
    harmless = (*(f"{name}.train.{key}" for key in TRAINING_ONLY), *declared.pop("harmless", ()))

    def run(work: Work) -> Manifest:
        (vectors, graph), settings = work.learned_from(name), work.training_of(name)
        if drawn := wants_batches(settings, vectors, graph):
            draw(vectors, graph, work.output, drawn, work.mapper)
        return work.train(vectors, graph, work.output, settings)

    declared = {"cost": training, **declared}
    return Stage(name=name, sections=(name,), harmless=harmless, workers="training", run=run, **declared)

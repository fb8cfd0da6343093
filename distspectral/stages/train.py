"""Train a network, whatever the objective: one process here; ``orchestration.train`` runs the same ranks under Ray."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from distspectral.costs.training import SCAN
from distspectral.errors import ConfigError
from distspectral.graph.store import MappedGraph
from distspectral.models.state import read_state, write_state
from distspectral.stages.stage import Manifests, Piece, Work, training_stage
from distspectral.storage.artifact.directory import MANIFEST, Artifact
from distspectral.storage.artifact.manifest import Manifest
from distspectral.storage.artifact.output import Output
from distspectral.storage.rows.joined import open_vectors
from distspectral.training.checkpoint import LocalTrainingObserver, restore
from distspectral.training.drawing import BATCHES
from distspectral.training.drawn import DrawnVectors
from distspectral.training.loop import Trainer
from distspectral.training.modes import plain_torch
from distspectral.training.run_log import METRICS_FILE, OnWindow, RunLog
from distspectral.training.settings import TrainSettings
from distspectral.training.spectral import build_sampler

MODEL_FILE = "model.pt"
STATISTICS = ("input_mean", "input_scale")
"""Ends of the names of what a network knows of its rows before it learns."""


@plain_torch()
def train(
    vectors: Sequence[Artifact],
    graph: Artifact | None,
    output: Output,
    settings: TrainSettings,
    on_window: OnWindow | None = None,
) -> Manifest:
    """Train in this process; an interrupted run goes on from its last checkpoint.

    Args:
        vectors: finished ``vectors`` artifact; or several over the same rows, seen side by side.
        graph: finished ``graph`` artifact over the same rows; None where the objective needs none.
        output: where the artifact ``training`` goes.
        settings: of the objective.
        on_window: called with each window's metrics.

    Raises:
        NonFiniteStepError, RankDeficientError: training cannot go on.
        DamagedArtifactError: no checkpoint of an interrupted run is whole.
    """
    output.begin()
    trainer = open_trainer(vectors, graph, settings, standing_batches(output.artifact))
    log = RunLog(output.artifact, restore(trainer, output.artifact), on_window)
    trainer.fit(LocalTrainingObserver(log))
    return finish(vectors, output, settings, trainer_summary(trainer, output.artifact, log.history))


def standing_batches(artifact: Artifact) -> Artifact | None:
    """Return the batches that were drawn for an unfinished ``training`` artifact, None where there are none."""
    batches = artifact.child(BATCHES)
    return batches if batches.has(MANIFEST) else None


def open_trainer(
    vectors: Sequence[Artifact],
    graph: Artifact | None,
    settings: TrainSettings,
    batches: Artifact | None = None,
) -> Trainer[Any, Any]:
    """Return the settings' trainer over finished artifacts, with the weights of ``start_from``.

    See :meth:`TrainSettings.trainer`.

    Args:
        vectors: side by side.
        graph: over the same rows, None where the objective needs none.
        settings: of the objective.
        batches: drawn before, which are then all that is read.

    Raises:
        ConfigError: those weights are of a network of another shape.
    """
    rows = open_vectors(vectors)
    seen = rows if batches is None else DrawnVectors(rows, batches)
    trainer = settings.trainer(seen, None if graph is None else MappedGraph(graph, reread=True))
    if settings.start_from is not None:
        start = Artifact(settings.start_from)
        try:
            moved = _is_moved(start, vectors[0])
            weights = settings.first_weights(read_state(start, MODEL_FILE), trainer, moved)
            take_weights(trainer.model, weights, moved)
        except RuntimeError as error:  # torch lists every tensor
            raise ConfigError(
                f"start_from: the weights of {settings.start_from} do not fit this network "
                f"({str(error).splitlines()[-1].strip()}); give both runs the same data columns and settings",
                ["start_from"],
            ) from error
    return trainer


def take_weights(model: nn.Module, weights: Mapping[str, Tensor], moved: bool) -> None:
    """Give a model, not yet trained, the weights of another of its shape.

    Args:
        model: knows its rows' mean and scale.
        weights: state dict of the other.
        moved: whether the other's rows lay in another frame, so that the model keeps what it knows of its own.

    Raises:
        RuntimeError: the other has another shape.
    """
    own = model.state_dict() if moved else {}
    model.load_state_dict({**weights, **{name: own[name] for name in own if name.endswith(STATISTICS)}})


def _is_moved(start: Artifact, vectors: Artifact) -> bool:
    """Whether the rows of a finished training lay in another frame, so that its statistics are not those of these."""
    before, now = (one.manifest().properties.get("frame") for one in (start, vectors))
    return any((before or {}).get(name) != (now or {}).get(name) for name in ("origin", "exponent"))


def trainer_summary(trainer: Trainer[Any, Any], artifact: Artifact, history: list[dict[str, Any]]) -> dict[str, Any]:
    """Write the trained weights to ``model.pt`` and return what the manifest says of them; the log's rank only."""
    write_state(artifact, MODEL_FILE, trainer.model.cpu().state_dict())
    seconds = sum(record["seconds"] for record in history)
    rate = f"{trainer.objective.unit}_per_second"
    of_windows = ("step", "seconds", "core_seconds", "learning_rate")
    last = {name: value for name, value in history[-1].items() if name not in of_windows}
    return last | {
        "steps": trainer.step,
        "skipped_steps": trainer.skipped.total,
        "drawn": trainer.n_drawn,
        "batch_growth": trainer.growth,
        rate: trainer.n_drawn / seconds,
        "stopped_because": trainer.schedule.ended_because(trainer.objective.watched),
    }


def finish(vectors: Sequence[Artifact], output: Output, settings: TrainSettings, summary: dict[str, Any]) -> Manifest:
    """Commit the artifact ``training`` from what the log's rank returned; batches that were drawn are removed."""
    output.artifact.child(BATCHES).delete()
    properties = settings.facts(open_vectors(vectors)) | {"frame": vectors[0].manifest().properties.get("frame")}
    return output.commit([], properties, summary, files=(MODEL_FILE, METRICS_FILE))


def _pieces(work: Work) -> dict[str, Piece]:
    """Return the pass over the graph from which edges are drawn."""
    if work.recipe.embedded_graph is None:
        return {}
    rows, graph = open_vectors(work.seen), MappedGraph(work.graph, reread=True)
    return {SCAN: Piece(lambda: build_sampler(rows, graph, work.settings["train"]), rows.n_rows)}


TOLD = (
    "steps",
    "skipped_steps",
    "stopped_because",
    "loss",
    "edges_per_second",
    "rows_per_second",
    "ritz_values",
    "classes_per_step",
    "rank",
)
"""What trainings say of themselves, each of it only where the objective has it."""


def _facts(manifests: Manifests) -> dict[str, Any]:
    found, shape = manifests["train"].metrics, manifests["train"].properties
    facts = {key: found[key] for key in TOLD if key in found}
    return facts | {key: shape[key] for key in ("n_components", "n_train_classes", "n_classes") if key in shape}


def _lines(facts: dict[str, Any]) -> dict[str, str]:
    rate, unit = next((v, k.partition("_")[0]) for k, v in facts.items() if k.endswith("_per_second"))
    lines = {"training": f"{facts['steps']:,} steps, {rate:,.0f} {unit}/s, {facts['stopped_because']}"}
    if "n_train_classes" in facts:
        lines["classes"] = f"{facts['n_train_classes']:,} learned from, {facts['n_classes']:,} in all"
    if "classes_per_step" in facts:
        lines["loss"] = f"{facts['loss']:.3f} of {facts['classes_per_step']:.0f} classes a step"
    return lines


def _notes(metrics: dict[str, Any]) -> list[str]:
    skipped, steps = metrics["train"]["skipped_steps"], metrics["train"]["steps"]
    if not skipped:
        return []
    return [
        f"{skipped:,} of the {steps:,} training steps were skipped for NaN, infinity or dependent functions; lower "
        "train.learning_rate or set train.max_gradient_norm if they are more than a few."
    ]


TRAIN = training_stage(
    "train",
    folder="training",
    purpose="Train the network: on the graph's edges, or on labels.",
    done="trained",
    inputs=lambda recipe: (*recipe.may_see, *((recipe.embedded_graph,) if recipe.embedded_graph else ())),
    harmless=("train.dscl.whiten",),
    pieces=_pieces,
    facts=_facts,
    lines=_lines,
    notes=_notes,
)

"""A trial on sampled rows of what neighbours are searched in and by which distance, where the config leaves it open."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

from distspectral.costs.bill import Bill
from distspectral.graph.config import GraphConfig
from distspectral.graph.trial import TRIAL_ROWS, Space, Trial, tried
from distspectral.mapping import Mapper, local_map
from distspectral.stages.stage import Stage, Work
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.artifact.manifest import Manifest
from distspectral.storage.artifact.output import Output
from distspectral.storage.rows.vectors import MappedVectors

TRYING = "trying ways to search"


def trial(
    vectors: Artifact,
    output: Output,
    spaces: Sequence[Space],
    config: GraphConfig,
    n_components: int,
    mapper: Mapper = local_map,
    start_from: str | None = None,
) -> Manifest:
    """Write the artifact ``trial``, which is its manifest: properties are the fields of a :class:`Trial`.

    Args:
        vectors: finished ``vectors`` artifact.
        output: where ``trial`` goes.
        spaces: in which neighbours may be searched, the simplest first.
        config: the section ``graph``.
        n_components: principal components of which a space has so many.
        mapper: runs the one task, because it reads rows.
        start_from: URI of such an artifact of another run, whose decision is taken: weights that trainings begin with
            know no other space.
    """
    output.begin()
    if start_from is None:
        task = functools.partial(_try, spaces=tuple(spaces), config=config, n_components=n_components)
        (found,) = mapper(task, [vectors], TRYING)
    else:
        found = Trial.of(Artifact(start_from).manifest().properties)
    return output.commit([], dataclasses.asdict(found), {})


def _try(vectors: Artifact, *, spaces: tuple[Space, ...], config: GraphConfig, n_components: int) -> Trial:
    return tried(MappedVectors(vectors), spaces, config, n_components)


def _run(work: Work) -> Manifest:
    recipe, settings = work.spectral, work.settings
    begun = recipe.starts.get(TRIAL.name)
    n_components = settings["pca"].n_components
    return trial(
        work.artifacts["pack"], work.output, recipe.open_spaces, settings["graph"], n_components, work.mapper, begun
    )


def _cost(bill: Bill) -> None:
    sample_rows = bill.rates.sample_rows
    tried_rows = min(bill.n_rows, TRIAL_ROWS) / min(sample_rows, TRIAL_ROWS)
    bill.driver({}, bill.us(TRYING) * sample_rows / 1e6 * tried_rows)  # one task, all else waits
    bill.worker_bytes += bill.settings["graph"].task_memory
    bill.maps = []


TRIAL = Stage(
    name="trial",
    folder="trial",
    purpose="Try on sampled rows what neighbours are best searched in.",
    done="tried ways to search",
    inputs=lambda recipe: ("pack",),
    sections=("representation", "graph.metric", "graph.n_neighbors", "graph.seed", "graph.task_memory", "pca"),
    workers="tasks",
    run=_run,
    cost=_cost,
    facts=lambda manifests: dataclasses.asdict(Trial.of(manifests["trial"].properties)),
    lines=lambda facts: {"ways tried": Trial.of(facts).in_words} if _is_told(Trial.of(facts)) else {},
)


def _is_told(found: Trial) -> bool:
    """Whether rows as they are, which is what one expects, were not taken."""
    return bool(found.predicted) and (found.space, found.metric) != ("rows", "l2")

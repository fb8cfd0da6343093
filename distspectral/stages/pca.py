"""The principal components of all rows, in which neighbours may be searched: codes that nothing trains."""

from __future__ import annotations

import math

from distspectral.costs.bill import Bill, Map
from distspectral.embedding.forward import rows_of_block
from distspectral.embedding.pca import LEAST_ROWS, MOST_TASKS, SUMMING, WIDEST, PcaConfig, principal_components
from distspectral.mapping import Mapper, local_map
from distspectral.models.state import read_state, write_state
from distspectral.stages.stage import Stage, Work
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.artifact.manifest import Manifest
from distspectral.storage.artifact.output import Output
from distspectral.storage.rows.vectors import MappedVectors


def pca(
    vectors: Artifact,
    output: Output,
    config: PcaConfig,
    seed: int = 0,
    mapper: Mapper = local_map,
    start_from: str | None = None,
) -> Manifest:
    """Write the artifact ``pca``: encoder and decoder, as the training of an autoencoder leaves them.

    Args:
        vectors: finished ``vectors`` artifact.
        output: where ``pca`` goes.
        config: the section ``pca``.
        seed: of the sample of rows too wide for a covariance.
        mapper: runs the tasks.
        start_from: URI of such an artifact of another run, whose components are taken: the weights that later
            trainings begin with know no others.

    Returns:
        The manifest; properties ``dim``, ``n_components``.
    """
    output.begin()
    rows = MappedVectors(vectors)
    if start_from is None:
        model = principal_components(rows, config.n_components, seed, mapper)
        state, n_components = model.state_dict(), len(model.encoder.head.weight)
    else:
        begun = Artifact(start_from)
        state, n_components = read_state(begun, "model.pt"), begun.manifest().properties["n_components"]
    write_state(output.artifact, "model.pt", state)
    return output.commit([], {"dim": rows.dim, "n_components": n_components}, {}, files=("model.pt",))


def _run(work: Work) -> Manifest:
    settings, begun = work.settings, work.recipe.starts.get(PCA.name)
    return pca(work.artifacts["pack"], work.output, settings["pca"], settings["seed"], work.mapper, begun)


def _cost(bill: Bill) -> None:
    dim = bill.recipe.dim
    bill.cores({"sum": bill.us(SUMMING)})
    bill.maps = [Map(min(MOST_TASKS, math.ceil(bill.n_rows / LEAST_ROWS)))]
    bill.alone()
    bill.read = bill.kept_by("pack")
    matrix = 8.0 * min(dim, WIDEST) ** 2
    bill.worker_bytes += 2 * matrix + 12.0 * dim * rows_of_block(dim)
    bill.driver_bytes += 3 * matrix


PCA = Stage(
    name="pca",
    folder="pca",
    purpose="Find the principal components of all rows.",
    done="found components",
    inputs=lambda recipe: ("pack",),
    sections=("pca", "seed"),
    workers="tasks",
    run=_run,
    cost=_cost,
    facts=lambda manifests: {"n_components": manifests["pca"].properties["n_components"]},
    lines=lambda facts: {"principal components": f"{facts['n_components']}"},
)

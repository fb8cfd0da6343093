"""The rotation of the network's outputs to eigenfunctions, folded into the network.

It is that of Rayleigh-Ritz, from exact Gram and energy over every edge. Where polished functions were taught, the
outputs are turned as near to these as orthonormal functions come: by energy, learned functions of tiny eigenvalues
would be sorted by their errors.

Afterwards the network emits eigenfunctions in eigenvalue order, orthonormal over the dataset.
Shape letters: N rows, B rows of a block, K neighbours, E functions trained, P components kept.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distspectral.costs.bill import Bill
from distspectral.embedding.forward import in_blocks
from distspectral.graph.certified import aligned_functions, certified
from distspectral.graph.store import Graph, MappedGraph
from distspectral.mapping import Mapper, local_map
from distspectral.models.encoded import EncodedNetwork
from distspectral.models.networks import Perceptron
from distspectral.spectral.capacity import PARTED, EdgeCheck, edge_check
from distspectral.spectral.certificate import Certificate, as_note
from distspectral.spectral.diagnostics import suggested_n_clusters
from distspectral.spectral.polish import can_polish, polish_bytes
from distspectral.spectral.rayleigh import Laplacian, dirichlet_energy, gram, rayleigh_ritz
from distspectral.spectral.subspace import Filters
from distspectral.stages.certify import SAMPLE_ROWS, RowSample
from distspectral.stages.codes import load_encoder
from distspectral.stages.encoding import WRITER_BYTES, forward_piece, passed
from distspectral.stages.features import load_siamese
from distspectral.stages.stage import Manifests, Piece, Stage, Work
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.artifact.manifest import Manifest
from distspectral.storage.artifact.output import Output
from distspectral.storage.rows.frame import Frame
from distspectral.storage.rows.joined import open_vectors
from distspectral.storage.rows.vectors import ArrayVectors, MappedVectors, Vectors
from distspectral.training.checkpoint import restored, write_state
from distspectral.training.distill import load_trained_network
from distspectral.training.spectral import SpectralSettings

CALIBRATING = "calibrating"

NO_ENCODERS: Mapping[str, Any] = {}

BLOCK_BYTES = 1 << 21
"""Functions at both ends of the edges that are summed at a time, in float64: they stay in a core's cache. With 45
functions and 15 neighbours these are 364 rows. 8,192 at a time took 1.5 times as long, and 2.5 times beside tasks that
read and write much."""

TASK_ROWS = 1 << 16
"""Rows of the graph in one task at least, some seconds of one core."""

PIECE_ROWS = 1 << 13
"""Rows of the graph whose edges are summed to time it."""

MAX_TASKS = 1 << 10
"""Beyond them tasks grow: each opens all shards, for neighbours lie anywhere."""


def rows_per_task(n_rows: int) -> int:
    """Return the rows of the graph whose edges one task sums."""
    return max(TASK_ROWS, -(-n_rows // MAX_TASKS))


def _rows_per_block(n_neighbors: int, n_functions: int) -> int:
    """Return the rows of the graph whose edges are summed at a time."""
    return max(1, BLOCK_BYTES // (8 * (1 + n_neighbors) * n_functions))


def calibrate(
    vectors: Sequence[Artifact],
    graph: Artifact,
    training: Artifact,
    output: Output,
    settings: SpectralSettings,
    mapper: Mapper = local_map,
    encoders: Mapping[str, Any] = NO_ENCODERS,
    frame: Frame | None = None,
    polished: Artifact | None = None,
) -> Manifest:
    """Write the artifact ``model``: the calibrated network and its card.

    Every row passes the network once (``features``, removed at the end); then every edge of the graph is summed, or
    all rows are compared with polished functions.

    Args:
        vectors: finished ``vectors`` artifacts that the network was trained on, side by side.
        graph: finished ``graph`` artifact over the same rows.
        training: finished ``training`` or ``distilled`` artifact.
        output: where the artifact ``model`` goes.
        settings: those of the training.
        mapper: hands out shards and row ranges.
        encoders: what the trained network needs before it: arguments of
            :class:`distspectral.models.encoded.EncodedNetwork`.
        frame: of the raw rows; None: they are as they were read.
        polished: finished ``polished`` artifact over the same rows, from which those functions were learned.

    Raises:
        RankDeficientError: the trained functions are not finite over the dataset.
    """
    output.begin()
    load = functools.partial(load_trained_network, training)
    features = passed(vectors, load, output, settings.train.device, mapper)
    if polished is None:
        rotation, ritz_values, certificate = _by_edges(features, graph, settings, mapper)
    else:
        task = functools.partial(_by_polish, features, graph, polished, settings.spectral.laplacian)
        ((rotation, certificate),) = mapper(task, [settings.n_components], "certifying")
        ritz_values = np.asarray(polished.manifest().properties["eigenvalues"])
    n_rows, n_kept = features.manifest().n_rows, rotation.shape[1]
    network = EncodedNetwork(load_trained_network(training).folded(torch.tensor(rotation)), **encoders)
    is_complete = len(ritz_values) < min(settings.n_functions, settings.network.hidden[-1] + 1)
    write_state(output.artifact, "model.pt", network.state())
    properties = {
        "dim": network.dim,
        "frame": (frame or Frame()).properties(),
        "inputs": list(network.inputs),
        "n_components": n_kept,
        "hidden": list(settings.network.hidden),
        "laplacian": settings.spectral.laplacian,
        "ritz_values": ritz_values.tolist(),
        "suggested_n_clusters": suggested_n_clusters(ritz_values, n_kept, is_complete),
    }
    output.artifact.write_json("model_card.json", model_card(properties, settings, training.manifest(), n_rows))
    features.filesystem.delete_dir(features.path)
    return output.commit([], properties, {"certificate": certificate.facts()}, files=("model.pt", "model_card.json"))


def _by_edges(
    features: Artifact, graph: Artifact, settings: SpectralSettings, mapper: Mapper
) -> tuple[NDArray[np.float64], NDArray[np.float64], Certificate]:
    """Return the rotation (E, P) of trained functions to Ritz functions, all Ritz values and the certificate."""
    manifest, laplacian = features.manifest(), settings.spectral.laplacian
    n_rows, n_functions = manifest.n_rows, manifest.properties["dim"]
    step = rows_per_task(n_rows)
    ranges = [(start, min(start + step, n_rows)) for start in range(0, n_rows, step)]
    polishes = can_polish(n_rows, n_functions, graph.manifest().properties["k"])
    sample = None if polishes else RowSample.drawn(n_rows, n_functions, settings.seed)
    task = functools.partial(_mapped_sums, features, graph, laplacian, None if sample is None else sample.rows)
    parts = sorted(mapper(task, ranges, CALIBRATING), key=lambda part: part[0])
    energy, gram_matrix = (torch.as_tensor(sum(part[index] for part in parts)) for index in (1, 2))
    sums = energy, gram_matrix, float(sum(part[3] for part in parts)), n_rows, settings
    rotation, values = ritz_functions(*sums)
    if sample is None:
        judge = functools.partial(_mapped_certificate, features, graph, laplacian)
        (certificate,) = mapper(judge, [rotation.shape[1]], "certifying")
    else:
        for part in parts:
            sample.merge(part[4])
        certificate = sample.certificate(*sums)
    return rotation, values, certificate


def edge_sums(
    features: Vectors,
    graph: Graph,
    start: int,
    stop: int,
    laplacian: Laplacian,
    sample: RowSample | None = None,
) -> tuple[Tensor, Tensor, float]:
    """Return energy (E, E), Gram (E, E) and affinity summed over the edges of rows [start, stop).

    The Gram is weighted by degree for the random-walk Laplacian and by 1 per row for the unnormalised one. Edges of and
    to sampled rows are added to the sample.
    """
    n_functions, n_neighbors = features.dim, graph.n_neighbors
    energy = torch.zeros(n_functions, n_functions, dtype=torch.float64)
    gram_sum, affinity = torch.zeros_like(energy), 0.0
    step = _rows_per_block(n_neighbors, n_functions)
    for first in range(start, stop, step):
        last = min(first + step, stop)
        neighbors, affinities = graph.block(first, last)
        weights = torch.from_numpy(np.asarray(affinities, dtype=np.float64)).reshape(-1)
        anchors = torch.tensor(features.block(first, last))
        others = torch.from_numpy(features.gather(np.asarray(neighbors, dtype=np.int64).reshape(-1)))
        n_rows = len(anchors)
        both = torch.cat([anchors, others])
        heads = torch.arange(n_rows).repeat_interleave(n_neighbors)
        energy += dirichlet_energy(both, heads, torch.arange(n_rows, len(both)), weights)
        if laplacian == "random_walk":
            mass = torch.cat([weights.view(n_rows, -1).sum(1), weights]) / 2
            gram_sum += gram(both, mass)
        else:
            gram_sum += gram(anchors, torch.ones(n_rows, dtype=torch.float64))
        affinity += float(weights.sum())
        if sample is not None:
            sample.add(first, anchors, np.asarray(neighbors, dtype=np.int64), weights, others)
    return energy, gram_sum, affinity


def _mapped_sums(
    features: Artifact,
    graph: Artifact,
    laplacian: Laplacian,
    sampled: NDArray[np.int64] | None,
    rows: tuple[int, int],
) -> tuple[int, Any, Any, float, Any]:
    """Return the range's start, its :func:`edge_sums` as arrays and its part of a sample of rows; one task."""
    functions = MappedVectors(features)
    sample = None if sampled is None else RowSample(sampled, functions.dim)
    energy, gram_sum, affinity = edge_sums(functions, MappedGraph(graph), *rows, laplacian, sample)
    return rows[0], energy.numpy(), gram_sum.numpy(), affinity, None if sample is None else sample.part()


def _mapped_certificate(features: Artifact, graph: Artifact, laplacian: Laplacian, n_kept: int) -> Certificate:
    """Return the certificate of the lowest P functions; one task, of the whole graph."""
    functions = MappedVectors(features)
    return certified(functions.block(0, functions.n_rows), MappedGraph(graph), n_kept, laplacian)


def _by_polish(
    features: Artifact,
    graph: Artifact,
    polished: Artifact,
    laplacian: Laplacian,
    n_kept: int,
) -> tuple[NDArray[np.float64], Certificate]:
    """Return the rotation of taught functions, and the certificate of what it makes; one task, of the whole graph."""
    functions = MappedVectors(features)
    n_rows = functions.n_rows
    mass, exact = np.split(MappedVectors(polished).block(0, n_rows), [1], axis=1)
    found = polished.manifest().properties
    filters, n_carried = Filters(**found["filters"]), min(n_kept, len(found["eigenvalues"]))
    trained = functions.block(0, n_rows)
    return aligned_functions(trained, mass[:, 0], exact, filters, MappedGraph(graph), n_carried, laplacian)


def ritz_functions(
    energy: Tensor, gram_sum: Tensor, affinity: float, n_rows: int, settings: SpectralSettings
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the rotation (E, P) of trained functions to Ritz functions and all Ritz values.

    Rows that are few or equal carry fewer functions than were trained: there are then as many Ritz values, estimates of
    the Laplacian's eigenvalues, as functions are independent over the rows, and P is no more than that.

    Values of the unnormalised Laplacian come divided by the mean degree, so that both kinds have the same scale.

    Args:
        energy: (E, E) float64 of :func:`edge_sums` over all rows.
        gram_sum: (E, E) float64 likewise.
        affinity: sum of all affinities.
        n_rows: N.
        settings: those the network was trained with.

    Raises:
        RankDeficientError: the functions are not finite.
    """
    random_walk = settings.spectral.laplacian == "random_walk"
    total_mass = affinity if random_walk else float(n_rows)
    values, rotation = rayleigh_ritz(energy / affinity, gram_sum / total_mass)
    return rotation[:, : settings.n_components].numpy(), values.clamp(min=0).numpy()


def load_calibrated_network(model: Artifact) -> EncodedNetwork:
    """Return the network of a finished ``model`` artifact on the CPU, ready to evaluate."""
    return restored(model, "model.pt", EncodedNetwork.from_state)


def model_card(
    properties: dict[str, Any], settings: SpectralSettings, training: Manifest, n_rows: int
) -> dict[str, Any]:
    """Return what someone who is handed ``model.pt`` alone needs to know."""
    return {
        "what": "maps a raw vector to its coordinates in the eigenspace of the training data's graph Laplacian",
        "input": f"({properties['dim']},) float32, not standardised: (factor x - origin) / 2^exponent of the frame, in "
        "float64, of a raw row x",
        "frame": properties["frame"],
        "output": f"({properties['n_components']},) float32, eigenfunctions in eigenvalue order, the constant 1 first; "
        "orthonormal over the training rows "
        + ("weighted by degree" if properties["laplacian"] == "random_walk" else "with equal weights"),
        "network": {
            "inputs": properties["inputs"],
            "hidden": properties["hidden"],
            "activation": "relu",
            "output": "linear",
        },
        "eigenvalues": properties["ritz_values"][: properties["n_components"]],
        "suggested_n_clusters": properties["suggested_n_clusters"],
        "training_rows": n_rows,
        "training": {"steps": training.metrics["steps"], "stopped_because": training.metrics["stopped_because"]},
        "settings": settings.model_dump(mode="json"),
        "limits": "rows far from the training data get coordinates too; nothing here warns of them",
    }


LOADERS: dict[str, Callable[[Artifact], Perceptron]] = {"encoder": load_encoder, "siamese": load_siamese}
"""By argument of :class:`distspectral.models.encoded.EncodedNetwork`."""


def _run(work: Work) -> Manifest:
    assert work.graph is not None, "eigenfunctions are those of a graph"
    recipe = work.recipe
    encoders: dict[str, Any] = {"inputs": tuple(recipe.seen)}
    encoders |= {name: LOADERS[name](work.artifacts[stage]) for name, stage in recipe.encoders.items()}
    frame = Frame.of_properties(work.artifacts["pack"].manifest().properties["frame"])
    return calibrate(
        work.seen,
        work.graph,
        work.artifacts[recipe.learned_by],
        work.output,
        work.settings["train"],
        work.mapper,
        encoders,
        frame,
        work.artifacts.get("polish"),
    )


def _cost(bill: Bill) -> None:
    (seen, graph), n_functions = bill.recipe.learns_from["train"], bill.settings["train"].n_functions
    assert graph is not None, "eigenfunctions are those of a graph"
    rows = min(bill.n_rows, rows_per_task(math.ceil(bill.n_rows)))
    taught = bill.recipe.learned_by == "distill"  # then one task compares functions, and no edges are summed
    edges_us, n_tasks = (0.0, 1.0) if taught else (bill.us(CALIBRATING), bill.n_rows / rows)
    bill.through(("train",), bill.us("encoding"), edges_us, n_tasks)
    bill.alone()
    features = bill.n_rows * (4 * n_functions + 16)
    forward, edges_of = bill.maps
    forward.read, edges_of.read, edges_of.written = bill.kept_by(*seen), bill.kept_by(graph) + features, 0.0
    bill.read = bill.kept_by(*seen, graph) + features
    bill.written = bill.scratch = features
    n_neighbors = bill.settings["graph"].n_neighbors
    certifying = 0.0
    if can_polish(bill.n_rows, n_functions, n_neighbors):  # more rows are judged by those of a sample
        certifying = polish_bytes(bill.n_rows, n_functions, n_neighbors)
        bill.driver({}, bill.n_rows * bill.us("certifying") / 1e6)
    bill.driver_bytes += 8.0 * (2 * n_functions + 2) * SAMPLE_ROWS * (2 + n_neighbors)
    bill.worker_bytes += max(4.0 * BLOCK_BYTES, WRITER_BYTES, certifying)


def _pieces(work: Work) -> dict[str, Piece]:
    """Return the forward pass, and the sums over edges, which a sample small enough to be polished does without."""
    assert work.graph is not None, "eigenfunctions are those of a graph"
    network, laplacian = load_trained_network(work.artifacts[work.recipe.learned_by]), work.settings["train"].spectral
    graph, seen = MappedGraph(work.graph), open_vectors(work.seen)
    n_rows = min(graph.n_rows, PIECE_ROWS)
    features = ArrayVectors(in_blocks(network, seen))
    return {
        **forward_piece(network, work.seen),
        CALIBRATING: Piece(lambda: edge_sums(features, graph, 0, n_rows, laplacian.laplacian), n_rows),
    }


def _facts(manifests: Manifests) -> dict[str, Any]:
    """Return the spectrum and, of a training on edges of the whole graph, how it did on edges that it never drew."""
    trained, model = manifests["train"], manifests["calibrate"].properties
    facts = {key: model[key] for key in ("n_components", "inputs", "ritz_values", "suggested_n_clusters")}
    facts["n_functions"] = manifests.get("distill", trained).properties["n_functions"]
    facts["certificate"] = manifests["calibrate"].metrics["certificate"]
    drawn = trained.metrics.get("ritz_values")
    # edges inside batches are other edges, and polished functions are not those of the edges drawn
    if drawn is not None and trained.config["affinity"]["scope"] == "global" and "distill" not in manifests:
        n_drawn = trained.metrics["drawn"]
        graph = next(one for one in reversed(list(manifests.values())) if "largest_component_share" in one.properties)
        n_edges = graph.n_rows * graph.properties["k"]
        check = edge_check(drawn, model["ritz_values"], model["n_components"], n_drawn, n_edges)
        facts["edges"] = dataclasses.asdict(check)
    return facts


def _lines(facts: dict[str, Any]) -> dict[str, str]:
    kept = facts["ritz_values"][: facts["n_components"]]
    return {
        "network sees": " and ".join(facts["inputs"]),
        "Ritz values": " ".join(f"{value:.4f}" for value in kept),
        "certificate": facts["certificate"]["words"],
    }


def _notes(metrics: dict[str, Any]) -> list[str]:
    found, notes = metrics["calibrate"], []
    if found["n_components"] == 1:
        notes.append("The constant function alone is kept, so all rows have one place and one cluster.")
    if (n_independent := len(found["ritz_values"])) < found["n_functions"]:
        notes.append(
            f"Only {n_independent} of the {found['n_functions']} trained functions are independent over these rows, "
            f"and {found['n_components']} are kept: few rows differ, or the network's last layer is narrow."
        )
    if found["certificate"]["verdict"] in ("bad", "unproven"):
        section: Literal["train", "distill"] = "distill" if "distill" in metrics else "train"
        told, n_clusters = metrics[section], metrics.get("cluster", {}).get("n_clusters")
        ended = told["steps"], told["stopped_because"]
        notes.append(as_note(found["certificate"], *ended, n_clusters=n_clusters, section=section))
    if "edges" in found and (check := EdgeCheck(**found["edges"])).excess > PARTED:
        notes.append(
            f"The Ritz sum of all edges is {check.excess:.0%} above that of the edges that training ended with: "
            f"{check.advice}."
        )
    return notes


CALIBRATE = Stage(
    name="calibrate",
    folder="model",
    purpose="Make the network's outputs eigenfunctions, exactly orthonormal over the dataset.",
    done="calibrated",
    inputs=lambda recipe: (
        *recipe.may_see,
        recipe.embedded_graph,
        *(("polish", "distill") if recipe.distills else ("train",)),
    ),
    sections=("train.n_components",),
    workers="tasks",
    run=_run,
    cost=_cost,
    pieces=_pieces,
    facts=_facts,
    lines=_lines,
    notes=_notes,
)

"""The rotation of the network's outputs to eigenfunctions, folded into the network.

It is that of Rayleigh-Ritz, from Gram and energy over every edge, or over those of sampled rows where rows are many.
Where polished functions were taught, the outputs are turned as near to these as orthonormal functions come: by energy,
learned functions of tiny eigenvalues would be sorted by their errors.

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

from distspectral.calibration.edge_sums import BLOCK_BYTES, edge_sums
from distspectral.calibration.residuals import SAMPLE_ROWS
from distspectral.calibration.rotation import CALIBRATING, CERTIFYING, by_edges, by_polish, by_sample, rows_per_task
from distspectral.calibration.sampled_sums import N_BLOCKS, is_sampled, n_ends, sampled_rows
from distspectral.clustering.diffusion import diffusion_scale
from distspectral.costs.bill import Bill, Map
from distspectral.embedding.few_rows import SEEKING_EDGES, GatheredGraph
from distspectral.embedding.forward import BLOCK_ROWS, in_blocks
from distspectral.embedding.loading import Loader
from distspectral.graph.runs import run_count
from distspectral.graph.store import MappedGraph
from distspectral.graph.stratified import StratifiedRows
from distspectral.mapping import Mapper, local_map
from distspectral.models.encoded import EncodedNetwork
from distspectral.models.networks import Perceptron
from distspectral.models.state import restored, write_state
from distspectral.spectral.capacity import PARTED, EdgeCheck, edge_check
from distspectral.spectral.certificate import as_note, as_weighed
from distspectral.spectral.diagnostics import suggested_n_clusters
from distspectral.spectral.polish import can_polish, polish_bytes
from distspectral.stages.codes import load_encoder
from distspectral.stages.encoding import WRITER_BYTES, forward_piece, passed
from distspectral.stages.features import load_siamese
from distspectral.stages.stage import Manifests, Piece, Stage, Work
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.artifact.manifest import Manifest
from distspectral.storage.artifact.output import Output
from distspectral.storage.rows.frame import Frame
from distspectral.storage.rows.joined import open_vectors
from distspectral.storage.rows.vectors import ArrayVectors
from distspectral.training.distill import load_trained_network
from distspectral.training.spectral import SpectralSettings

NO_ENCODERS: Mapping[str, Any] = {}

PIECE_ROWS, SELDOM = 1 << 13, 1 << 8
"""Of timing: rows whose edges are summed, and one of how many rows is sought."""


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
    all rows are compared with polished functions. Of many rows a sample is taken: the ends of its edges pass.

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
    facts, n_functions = graph.manifest(), training.manifest().properties["n_functions"]
    n_rows, n_neighbors = facts.n_rows, facts.properties["k"]
    load = functools.partial(load_trained_network, training)
    if polished is None and is_sampled(n_rows, n_functions, n_neighbors):
        scratch = output.artifact.child("ends")
        loader = Loader((training.uri, training.manifest().fingerprint), load)
        found = by_sample(vectors, loader, graph, scratch, n_functions, settings, mapper)
    else:
        scratch = passed(vectors, load, output, settings.train.device, mapper)
        if polished is None:
            found = by_edges(scratch, graph, settings, mapper)
        else:
            task = functools.partial(by_polish, scratch, graph, polished, settings.spectral.laplacian)
            (found,) = mapper(task, [settings.n_components], CERTIFYING)
    rotation, ritz_values, n_kept = found.rotation, found.ritz_values, found.rotation.shape[1]
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
    scratch.delete()
    metrics = {"certificate": found.certificate.facts(), **found.sampled}
    return output.commit([], properties, metrics, files=("model.pt", "model_card.json"))


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
    n_rows, n_neighbors = math.ceil(bill.n_rows), bill.settings["graph"].n_neighbors
    taught = bill.recipe.learned_by == "distill"  # then one task compares functions, and no edges are summed
    if not taught and is_sampled(n_rows, n_functions, n_neighbors):
        _cost_of_sample(bill, seen, graph, n_functions)
        return
    rows, certifying = min(bill.n_rows, rows_per_task(n_rows)), 0.0
    edges_us, n_tasks = (0.0, 1.0) if taught else (bill.us(CALIBRATING), bill.n_rows / rows)
    bill.through(("train",), bill.us("encoding"), edges_us, n_tasks)
    bill.alone()
    features = bill.n_rows * (4 * n_functions + 16)
    forward, edges_of = bill.maps
    forward.read, edges_of.read, edges_of.written = bill.kept_by(*seen), bill.kept_by(graph) + features, 0.0
    bill.read = bill.kept_by(*seen, graph) + features
    bill.written = bill.scratch = features
    if can_polish(bill.n_rows, n_functions, n_neighbors):  # more rows are judged by those of a sample
        certifying = polish_bytes(bill.n_rows, n_functions, n_neighbors)
        bill.driver({}, bill.n_rows * bill.us(CERTIFYING) / 1e6)
    bill.driver_bytes += 8.0 * (2 * n_functions + 2) * SAMPLE_ROWS * (2 + n_neighbors)
    bill.worker_bytes += max(4.0 * BLOCK_BYTES, WRITER_BYTES, certifying)


def _cost_of_sample(bill: Bill, seen: tuple[str, ...], graph: str, n_functions: int) -> None:
    """Fill in what the edges of sampled rows take; of all rows only the lists are read."""
    n_neighbors, summed = bill.settings["graph"].n_neighbors, sampled_rows(n_functions)
    ends = n_ends(n_functions, n_neighbors)
    seeking, passing, summing = (
        bill.us(SEEKING_EDGES),
        bill.us("encoding") * ends / bill.n_rows,
        bill.us(CALIBRATING) * summed / bill.n_rows,
    )
    bill.cores({"seek edges": seeking, "embed ends": passing, "sum": summing})
    functions = 4.0 * n_functions * ends
    vectors = bill.kept_by(*seen) * ends / bill.n_rows
    bill.maps = [
        Map(run_count(math.ceil(bill.n_rows), bill.n_shards), seeking, bill.kept_by(graph), 0.0),
        Map(-(-ends // BLOCK_ROWS), passing, vectors, functions),
        Map(N_BLOCKS, summing, functions, 0.0),
    ]
    bill.alone()
    bill.read = bill.kept_by(graph) + vectors + functions
    bill.written = bill.scratch = functions
    bill.driver_bytes += 32.0 * ends + 24.0 * summed * n_neighbors + 32.0 * SAMPLE_ROWS * n_functions
    bill.worker_bytes += max(4.0 * BLOCK_BYTES, 4.0 * BLOCK_ROWS * (bill.recipe.dim + bill.widest("train")))


def _pieces(work: Work) -> dict[str, Piece]:
    """Return the forward pass, and work on edges that a sample small enough to be polished does without."""
    network, laplacian = load_trained_network(work.artifacts[work.recipe.learned_by]), work.settings["train"].spectral
    graph, seen = MappedGraph(work.graph), open_vectors(work.seen)
    n_rows = min(graph.n_rows, PIECE_ROWS)
    features = ArrayVectors(in_blocks(network, seen))
    lists, few = GatheredGraph(work.graph, local_map), StratifiedRows(graph.n_rows, max(1, graph.n_rows // SELDOM))
    return {
        **forward_piece(network, work.seen),
        CALIBRATING: Piece(lambda: edge_sums(features, graph, 0, n_rows, laplacian.laplacian), n_rows),
        SEEKING_EDGES: Piece(lambda: lists.leading_to(few), graph.n_rows),
    }


def _facts(manifests: Manifests) -> dict[str, Any]:
    """Return the spectrum and, of a training on edges of the whole graph, how it did on edges that it never drew."""
    trained, model = manifests["train"], manifests["calibrate"].properties
    facts = {key: model[key] for key in ("n_components", "inputs", "ritz_values", "suggested_n_clusters")}
    facts["n_functions"] = manifests.get("distill", trained).properties["n_functions"]
    measured = manifests["calibrate"].metrics
    facts |= {key: measured[key] for key in ("certificate", "sampled_rows", "ritz_errors") if key in measured}
    if (clusters := manifests.get("cluster")) is not None:
        kept = np.asarray(model["ritz_values"][: model["n_components"]])
        time, n_counted = clusters.config["diffusion_time"], clusters.properties["n_counted"]
        facts["certificate"] = as_weighed(facts["certificate"], diffusion_scale(kept, time, n_counted))
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
    lines = {"network sees": " and ".join(facts["inputs"]), "Ritz values": " ".join(f"{value:.4f}" for value in kept)}
    if "sampled_rows" in facts:
        worst = max(facts["ritz_errors"][: facts["n_components"]])
        lines["calibrated by"] = f"the edges of {facts['sampled_rows']:,} rows; standard errors up to {worst:.2g}"
    return lines | {
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
            f"The Ritz sum of {'sampled' if 'sampled_rows' in found else 'all'} edges is {check.excess:.0%} above that "
            "of the edges that training ended with: "
            f"{check.advice}."
        )
    return notes


CALIBRATE = Stage(
    name="calibrate",
    folder="model",
    purpose="Make the network's outputs eigenfunctions, orthonormal over the dataset.",
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

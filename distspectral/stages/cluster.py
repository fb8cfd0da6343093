"""Centroids in the calibrated embedding: k-means on a sample once, never again."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from distspectral.clustering.candidates import candidates_in_words
from distspectral.clustering.config import ClusterConfig
from distspectral.clustering.diffusion import few_spread_in_words
from distspectral.clustering.fit import fit_assigner
from distspectral.clustering.lineage import FILE as LINEAGE
from distspectral.clustering.lineage import earlier_output, followed, write_lineage
from distspectral.clustering.sampled_edges import CUT_ROWS
from distspectral.costs.bill import Bill
from distspectral.embedding.few_rows import EMBEDDING, READING_EDGES, EmbeddedRows, GatheredGraph, numbers_of
from distspectral.embedding.forward import BLOCK_ROWS as FORWARD_ROWS
from distspectral.embedding.loading import Loader
from distspectral.mapping import Mapper, local_map
from distspectral.models.assigner import Assigner
from distspectral.models.state import restored, write_state
from distspectral.spectral.candidates import Candidate
from distspectral.spectral.lineage import EVENTS
from distspectral.stages.calibrate import load_calibrated_network
from distspectral.stages.stage import Manifests, Stage, Work
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.artifact.manifest import Manifest
from distspectral.storage.artifact.output import Output

AGREED = 0.95
"""Mean adjusted Rand index of restarts below which a report warns, if no second one reached the best solution.

Where two of ten do, the best of the next ten is most likely the same, however bad the others are."""
STRAYED = 0.005
"""Share of rows with a centroid of another part of the graph above which a report warns."""


def cluster(
    vectors: Artifact,
    model: Artifact,
    graph: Artifact,
    output: Output,
    config: ClusterConfig,
    seed: int,
    before: Artifact | None = None,
    mapper: Mapper = local_map,
) -> Manifest:
    """Write the artifact ``clusters``: how coordinates are scaled, and the centroids.

    Args:
        vectors: finished ``vectors`` artifact.
        model: finished ``model`` artifact.
        graph: finished ``graph`` artifact that the model is calibrated on.
        output: where the artifact ``clusters`` goes.
        config: number of clusters, coordinates, k-means.
        seed: of the sample and of k-means.
        before: ``output`` artifact of the run to start from, whose numbers clusters keep where they hold the same rows;
            what became of its clusters is written beside.
        mapper: runs the tasks that read sampled rows and edges.

    Raises:
        TooManyClustersError: more clusters than rows.
    """
    output.begin()
    made, edges = model.manifest(), graph.manifest()
    properties, component_file = made.properties, edges.properties["component_file"]
    loader = Loader((model.uri, made.fingerprint), functools.partial(load_calibrated_network, model))
    embed = EmbeddedRows((vectors,), loader, mapper)
    assigner, facts = fit_assigner(
        embed,
        GatheredGraph(graph, mapper),
        np.asarray(properties["ritz_values"][: properties["n_components"]]),
        config.n_clusters,
        config,
        seed,
        components=None if component_file is None else numbers_of(graph, component_file, mapper),
        suggested=properties["suggested_n_clusters"],
    )
    files = ["clusters.pt"]
    if before is not None:
        assigner, lineage, facts["lineage"] = followed(
            before, vectors, embed, assigner, config.sample_rows, seed, mapper
        )
        write_lineage(output.artifact, lineage)
        files.append(LINEAGE)
    write_state(output.artifact, "clusters.pt", assigner.state())
    return output.commit([], facts, {}, files=files)


def load_assigner(clusters: Artifact) -> Assigner:
    """Return the assigner of a finished ``clusters`` artifact on the CPU."""
    return restored(clusters, "clusters.pt", Assigner.from_state)


def _run(work: Work) -> Manifest:
    vectors, model = work.artifacts["pack"], work.artifacts["calibrate"]
    before = None if work.recipe.follows is None else earlier_output(Artifact(work.recipe.follows))
    settings, seed = work.settings["cluster"], work.settings["seed"]
    return cluster(vectors, model, work.graph, work.output, settings, seed, before, work.mapper)


def _cost(bill: Bill) -> None:
    sample_rows, sampled = bill.settings["cluster"].sample_rows, bill.rates.sample_rows
    seen, timed = min(bill.n_rows, sample_rows), min(sampled, sample_rows)
    us = (bill.alone_s * 1e6 + (bill.us(EMBEDDING) + bill.us(READING_EDGES)) * sampled) / timed
    bill.add("driver", seen * us / 1e6, f"{seen:,.0f} rows x {us:.3g} us")
    n_neighbors = bill.settings["graph"].n_neighbors
    judged = min(bill.n_rows, seen + min(seen, CUT_ROWS) * n_neighbors)
    bill.read = judged * 4 * bill.recipe.dim
    bill.driver_bytes += 4 * judged * 2 * bill.settings["train"].n_functions + 12 * CUT_ROWS * n_neighbors
    bill.worker_bytes += 4 * FORWARD_ROWS * bill.recipe.dim


def _facts(manifests: Manifests) -> dict[str, Any]:
    made = manifests["cluster"]
    told = (
        "n_clusters",
        "n_components",
        "n_spread",
        "candidates",
        "normalize_rows",
        "normalized_cuts",
        "restarts",
        "merged",
        "micro_clusters",
        "cut_shares",
        "modularity",
        "exchanges",
        "parts",
        "strayed",
        "lineage",
    )
    return {key: made.properties[key] for key in told if key in made.properties} | {"asked": made.config["n_clusters"]}


def _lines(facts: dict[str, Any]) -> dict[str, str]:
    ranks = (
        {"candidates (score, stability)": candidates_in_words(facts["candidates"])} if facts.get("candidates") else {}
    )
    lines = {"clusters": str(facts["n_clusters"]), **ranks, "found by": way_in_words(facts)}
    if (since := facts.get("lineage")) is not None:
        happened = ", ".join(f"{since[event]} {event}" for event in EVENTS)
        lines["since the run before"] = f"{happened} ({CLUSTER.folder}/{LINEAGE})"
    return lines


def _notes(metrics: dict[str, Any]) -> list[str]:
    facts = metrics["cluster"]
    asked, strayed, notes = facts["asked"], facts["strayed"], []
    if asked == "auto" and facts["candidates"] and not Candidate(**facts["candidates"][0]).stands_out:
        notes.append(
            f"No number of clusters stands out: {candidates_in_words(facts['candidates'])}, where noise has a score up "
            "to 0.17 or a stability up to 0.75. Look at other cuts of the tree (`distspectral recut`), or say how many "
            "you want."
        )
    restarts = facts["restarts"]
    if not facts["merged"] and restarts["runs"] > restarts["lowest"] == 1 and restarts["rand_index"] < AGREED:
        notes.append(
            f"The clusters depend on where k-means begins: {way_in_words(facts)}. "
            "Ask for another cluster.n_clusters, or raise cluster.restarts until several runs reach the best."
        )
    if (few := few_spread_in_words(facts["n_spread"], facts["n_components"], facts["n_clusters"])) is not None:
        notes.append(few)
    if facts["parts"] > facts["n_clusters"]:
        notes.append(
            f"The graph has {facts['parts']} parts that no edge joins, more than the {facts['n_clusters']} clusters; "
            "whole parts were put together. Raise cluster.n_clusters to have each in a cluster of its own."
        )
    if strayed > STRAYED:
        notes.append(
            f"{strayed:.1%} of the rows are in a cluster of a part of the graph that no edge joins to theirs, for the "
            "network does not tell the parts apart. Raise train.max_steps or network.hidden."
        )
    return notes


def way_in_words(facts: dict[str, Any]) -> str:
    """Return how the clusters were found, for readers who never heard of inertia or modularity."""
    found, n_exchanges = _first_way_in_words(facts), facts.get("exchanges", 0)
    if not n_exchanges:
        return found
    times = "once" if n_exchanges == 1 else f"{n_exchanges} times"
    return f"{found}; then {times} a cluster was split while two others became one, for that cuts less of the graph"


def _first_way_in_words(facts: dict[str, Any]) -> str:
    if facts["merged"]:
        of_k_means, of_merged = facts["cut_shares"]
        return (
            f"merged from {facts['micro_clusters']} micro-clusters, which cuts {of_merged:.1%} of the graph where "
            f"k-means cuts {of_k_means:.1%}"
        )
    restarts = facts["restarts"]
    if restarts["runs"] == 1:
        return "k-means ran once"
    return (
        f"{restarts['lowest']} of {restarts['runs']} runs of k-means reached the best solution; the others agree with "
        f"it by {restarts['rand_index']:.2f}, where 1 means the same clusters"
    )


CLUSTER = Stage(
    name="cluster",
    folder="clusters",
    purpose="Find the clusters' centroids in the embedding of a sample.",
    done="clustered",
    inputs=lambda recipe: ("pack", recipe.embedded_graph, "calibrate"),
    sections=("cluster", "seed"),
    harmless=("cluster.n_leaves",),
    workers="tasks",
    run=_run,
    cost=_cost,
    facts=_facts,
    lines=_lines,
    notes=_notes,
)

"""Centroids in the calibrated embedding: k-means on a sample once, never again."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distspectral.clusters import (
    FRAGMENT,
    ClusterConfig,
    Clusters,
    diffusion_scale,
    fit_centroids,
    merged_clusters,
    micro_clusters,
)
from distspectral.costs.bill import Bill
from distspectral.embedding.forward import BLOCK_ROWS as FORWARD_ROWS
from distspectral.embedding.loading import Loader
from distspectral.graph.store import GatheredEdges
from distspectral.mapping import Mapper, local_map
from distspectral.models.assigner import Assigner, clustering_coordinates, squared_distances
from distspectral.spectral.candidates import Candidate
from distspectral.spectral.diagnostics import cut_share, modularity, normalized_cut
from distspectral.spectral.lineage import EVENTS
from distspectral.stages.calibrate import load_calibrated_network
from distspectral.stages.candidates import SHOWN_CANDIDATES, candidates, candidates_in_words
from distspectral.stages.few_rows import EMBEDDING, READING_EDGES, EmbeddedRows, GatheredGraph, numbers_of
from distspectral.stages.lineage import FILE as LINEAGE
from distspectral.stages.lineage import earlier_output, followed, write_lineage
from distspectral.stages.sampled_edges import CUT_ROWS, Embed, SampledEdges, sampled_edges, some_of
from distspectral.stages.stage import Manifests, Stage, Work
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.artifact.manifest import Manifest
from distspectral.storage.artifact.output import Output
from distspectral.storage.rows.drawing import drawn_rows
from distspectral.training.checkpoint import restored, write_state

FEWER_CUTS = 0.4
"""Normalised cut of the clusters of rows as they are, over that of rows of length 1, below which they are taken.

On images, cells and titles it lies between .54 and 2.4. Where a large cluster was split in place of small ones, it is
below .37."""
MORE_CUTS = 1.05
"""Share of the graph that merged micro-clusters cut, over that of k-means clusters, above which the latter are taken.

Of 204 cases of eight datasets, the 42 with more modularity and up to 1.05 times as much cut gained .055 ACC on average
and lost .03 at worst. Up to 1.1 times one lost .07. On tf-idf text of uneven classes most cut 1.7 times as much and
more, and lose .2."""
ROUNDING = 1e-9
"""Modularity below which two clusterings are the same."""
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


def fit_assigner(
    embed: Embed,
    graph: GatheredEdges,
    ritz_values: NDArray[np.float64],
    n_clusters: int | Literal["auto"],
    config: ClusterConfig,
    seed: int,
    *,
    components: Callable[[NDArray[np.int64]], NDArray[Any]] | None,
    suggested: int = 1,
) -> tuple[Assigner, dict[str, Any]]:
    """Return the assigner fitted to a seeded sample of the rows, and facts of the fit.

    Three candidates are tried, and the graph tells which is right.

    k-means on rows of length 1 lets every row count alike, so a large cluster that is spread outweighs small ones.
    Rows as they are let small clusters count, and outliers too. Where clusters of rows as they are cut less than
    :data:`FEWER_CUTS` times as much of the graph, they are taken, unless one is a mere
    :data:`distspectral.clusters.FRAGMENT`: on tf-idf text they were specks of 4 to 30 rows and one large rest.

    Micro-clusters merged by modularity then take their place if they have more modularity, cut at most
    :data:`MORE_CUTS` times as much, and none is a fragment.

    Args:
        embed: the P components of rows.
        graph: of all N rows.
        ritz_values: (P,) of those components.
        n_clusters: C; ``auto``: the first of :func:`distspectral.spectral.candidates.ranked`.
        config: coordinates, method and k-means.
        seed: of the sample and of k-means.
        components: returns the graph's component that each of some rows is in; none of these is merged while another is
            split. None: there is but one.
        suggested: C of ``auto`` where rows are too few for candidates.

    Returns:
        The assigner, and by name: ``n_clusters``; ``n_components``; ``normalize_rows`` and ``variance`` of the
        assigner; ``restarts``, how far the runs of k-means agree; ``parts`` of the graph that were kept apart;
        ``strayed``, the share of rows whose nearest centroid is that of another part, as far as the network does not
        tell parts apart; ``normalized_cuts`` of rows of length 1 and of rows as they are, if both were tried;
        ``merged``, whether the clusters are merged micro-clusters, and if these were tried ``micro_clusters``, their
        number, ``cut_shares`` and ``modularity``, of k-means and of them; of ``auto`` the first ``candidates``.
    """
    facts: dict[str, Any] = {}
    generator = np.random.default_rng(seed)
    rows = drawn_rows(graph.n_rows, config.sample_rows, generator)
    parts = None if components is None else components(rows)
    if isinstance(n_clusters, int):
        number = n_clusters
    else:
        ranks = candidates(embed, graph, ritz_values, config, seed, rows)
        facts["candidates"] = [dataclasses.asdict(one) for one in ranks[:SHOWN_CANDIDATES]]
        number = ranks[0].n_clusters if ranks else min(suggested, len(rows))
    scale = torch.from_numpy(diffusion_scale(ritz_values, config.diffusion_time, number))
    if config.normalize_rows != "auto" and config.method == "k_means":
        sample = _Sample(torch.from_numpy(embed(rows)), parts, scale, number, config, seed)
        fitted = _k_means(sample, config.normalize_rows)
        return fitted.assigner, facts | fitted.facts | {"merged": False}

    edges, embedding = sampled_edges(embed, graph, rows, some_of(rows, CUT_ROWS, generator))
    sample = _Sample(embedding, parts, scale, number, config, seed)
    if config.normalize_rows == "auto":
        fitted, as_they_are = _k_means(sample, True), _k_means(sample, False)
        cuts = [normalized_cut(*edges.clusters(tried.assigner), number) for tried in (fitted, as_they_are)]
        facts["normalized_cuts"] = cuts
        if as_they_are.whole and cuts[1] < FEWER_CUTS * cuts[0]:
            fitted = as_they_are
    else:
        fitted = _k_means(sample, config.normalize_rows)

    merged = _merged(sample, edges, config.normalize_rows is not False) if config.method == "auto" else None
    facts["merged"] = False
    if merged is not None:
        found = [edges.clusters(tried.assigner) for tried in (fitted, merged)]
        shares, gained = [cut_share(*ends) for ends in found], [modularity(*ends, number) for ends in found]
        better = gained[1] > gained[0] + ROUNDING and shares[1] <= MORE_CUTS * shares[0]
        facts |= {"micro_clusters": merged.facts["micro_clusters"], "cut_shares": shares, "modularity": gained}
        if better and merged.whole:
            facts["merged"], fitted = True, merged._replace(facts=fitted.facts | merged.facts)
    return fitted.assigner, fitted.facts | facts


class _Sample(NamedTuple):
    """What candidates are fitted to: sampled rows (n, P), the part (n,) each is in, and how to find clusters."""

    embedding: Tensor
    parts: NDArray[np.int64] | None
    scale: Tensor
    n_clusters: int
    config: ClusterConfig
    seed: int


class _Candidate(NamedTuple):
    """An assigner, facts of its fit, and whether none of its clusters is a fragment of the sample."""

    assigner: Assigner
    facts: dict[str, Any]
    whole: bool


def _k_means(sample: _Sample, normalize_rows: bool) -> _Candidate:
    points = clustering_coordinates(sample.embedding, sample.scale, normalize_rows)
    fit = fit_centroids(points.numpy(), sample.n_clusters, sample.config, sample.seed, sample.parts)
    told = {
        "n_clusters": sample.n_clusters,
        "n_components": len(sample.scale),
        "restarts": {"runs": fit.n_runs, "lowest": fit.n_lowest, "rand_index": fit.rand_index},
        "parts": fit.n_parts,
    }
    return _candidate(sample, normalize_rows, points, fit, told)


def _merged(sample: _Sample, edges: SampledEdges, normalize_rows: bool) -> _Candidate | None:
    """Return the clusters merged by the edges from micro-clusters; None if there is nothing to merge."""
    points = clustering_coordinates(sample.embedding, sample.scale, normalize_rows)
    micro = micro_clusters(points.numpy(), sample.n_clusters, sample.seed, sample.parts)
    if micro is None:
        return None
    ends = clustering_coordinates(edges.embedding, sample.scale, normalize_rows)
    n_micro, between = len(micro.centroids), edges.between(ends, micro.centroids)
    fit = merged_clusters(points.numpy(), micro, between, sample.n_clusters)
    return None if fit is None else _candidate(sample, normalize_rows, points, fit, {"micro_clusters": n_micro})


def _candidate(
    sample: _Sample, normalize_rows: bool, points: Tensor, fit: Clusters, told: dict[str, Any]
) -> _Candidate:
    centroids = torch.from_numpy(fit.centroids)
    squared, nearest = squared_distances(points, centroids).min(1)
    variance = float(squared.double().mean()) / points.shape[1]
    strayed = (fit.labels != nearest.numpy()) & ~fit.fragments
    told |= {
        "normalize_rows": normalize_rows,
        "variance": variance,
        "strayed": float(strayed.mean()) if fit.n_parts > 1 else 0.0,
    }
    smallest = int(np.bincount(nearest.numpy(), minlength=sample.n_clusters).min())
    assigner = Assigner(sample.scale, centroids, normalize_rows, variance).eval()
    return _Candidate(assigner, told, smallest >= FRAGMENT * len(points) / sample.n_clusters)


def load_assigner(clusters: Artifact) -> Assigner:
    """Return the assigner of a finished ``clusters`` artifact on the CPU."""
    return restored(clusters, "clusters.pt", Assigner.from_state)


def _run(work: Work) -> Manifest:
    assert work.graph is not None, "eigenfunctions are those of a graph"
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
        "candidates",
        "normalize_rows",
        "normalized_cuts",
        "restarts",
        "merged",
        "micro_clusters",
        "cut_shares",
        "modularity",
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

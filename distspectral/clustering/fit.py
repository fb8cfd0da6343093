"""Centroids fitted to a sample of the embedding: several ways are tried, and the graph tells which is right.

Shape letters: n sampled rows, N rows, P components (the constant one included), C clusters.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distspectral.clustering.candidates import SHOWN_CANDIDATES, candidates
from distspectral.clustering.config import ClusterConfig
from distspectral.clustering.diffusion import counted_functions, diffusion_scale, spread_functions
from distspectral.clustering.k_means import FRAGMENT, Clusters, fit_centroids, means_of_groups
from distspectral.clustering.micro_clusters import merged_clusters, micro_clusters
from distspectral.clustering.sampled_edges import CUT_ROWS, Embed, SampledEdges, sampled_edges, some_of
from distspectral.clustering.split_merge import exchanged
from distspectral.graph.store import GatheredEdges
from distspectral.models.assigner import Assigner, clustering_coordinates, squared_distances
from distspectral.spectral.diagnostics import cut_share, modularity, normalized_cut
from distspectral.storage.rows.drawing import drawn_rows

FEWER_CUTS = 0.4
"""Normalised cut of the clusters of rows as they are, over that of rows of length 1, below which they are taken.

On images, cells and titles it lies between .54 and 2.4. Where a large cluster was split in place of small ones, it is
below .37."""
SMALLEST = 0.1
"""Share of an average cluster's rows that the smallest cluster of rows as they are has at least.

Theirs cut little where they are specks, too. On letters, pen strokes and vehicles the smallest had .02 to .05, and .05
to .25 ACC was lost; small clusters that were meant had .2 and more. Those that no edge joins to others are parts of the
graph, which have clusters of their own."""
MORE_CUTS = 1.05
"""Share of the graph that merged micro-clusters cut, over that of k-means clusters, above which the latter are taken.

Of 204 cases of eight datasets, the 42 with more modularity and up to 1.05 times as much cut gained .055 ACC on average
and lost .03 at worst. Up to 1.1 times one lost .07. On tf-idf text of uneven classes most cut 1.7 times as much and
more, and lose .2."""
ROUNDING = 1e-9
"""Modularity below which two clusterings are the same."""


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
    :data:`FEWER_CUTS` times as much of the graph, they are taken, unless one is smaller than :data:`SMALLEST`:
    on tf-idf text they were specks of 4 to 30 rows and one large rest.

    Micro-clusters merged by modularity then take their place if they have more modularity, cut at most
    :data:`MORE_CUTS` times as much, and none is a fragment.

    At last clusters are split while others become one, where the graph is cut less then; see
    :mod:`distspectral.clustering.split_merge`.

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
        The assigner, and by name: ``n_clusters``; ``n_components``; ``n_spread``, those that are not
        local, and ``n_counted``, see :mod:`distspectral.clustering.diffusion`; ``normalize_rows`` and ``variance`` of
        the assigner; ``restarts``, how far the runs of k-means agree; ``parts`` of the graph that were kept apart;
        ``strayed``, the share of rows whose nearest centroid is that of another part, as far as the network does not
        tell parts apart; ``normalized_cuts`` of rows of length 1 and of rows as they are, if both were tried;
        ``merged``, whether the clusters are merged micro-clusters, and if these were tried ``micro_clusters``, their
        number, ``cut_shares`` and ``modularity``, of k-means and of them; ``exchanges`` of a split for a merger, unless
        k-means alone was asked for; of ``auto`` the first ``candidates``.
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
    if config.normalize_rows != "auto" and config.method == "k_means":
        sample = _Sample.of(torch.from_numpy(embed(rows)), parts, ritz_values, number, config, seed)
        fitted = _k_means(sample, config.normalize_rows)
        return fitted.assigner, facts | fitted.facts | {"merged": False}

    edges, embedding = sampled_edges(embed, graph, rows, some_of(rows, CUT_ROWS, generator))
    sample = _Sample.of(embedding, parts, ritz_values, number, config, seed)
    if config.normalize_rows == "auto":
        fitted, as_they_are = _k_means(sample, True), _k_means(sample, False)
        cuts = [normalized_cut(*edges.clusters(tried.assigner), number) for tried in (fitted, as_they_are)]
        facts["normalized_cuts"] = cuts
        if as_they_are.smallest >= SMALLEST and cuts[1] < FEWER_CUTS * cuts[0]:
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
        if better and merged.smallest >= FRAGMENT:
            facts["merged"], fitted = True, merged._replace(facts=fitted.facts | merged.facts)
    if config.method == "auto":
        fitted = _exchanged(sample, edges, fitted)
    return fitted.assigner, fitted.facts | facts


class _Sample(NamedTuple):
    """What candidates are fitted to: sampled rows (n, P), the part (n,) each is in, and how to find clusters."""

    embedding: Tensor
    parts: NDArray[np.int64] | None
    n_spread: int
    n_counted: int
    scale: Tensor
    n_clusters: int
    config: ClusterConfig
    seed: int

    @classmethod
    def of(
        cls,
        embedding: Tensor,
        parts: NDArray[np.int64] | None,
        ritz_values: NDArray[np.float64],
        n_clusters: int,
        config: ClusterConfig,
        seed: int,
    ) -> Self:
        """Return the sample, its functions scaled by the diffusion time."""
        spread = spread_functions(embedding.numpy(), n_clusters)
        n_counted = counted_functions(spread, n_clusters, embedding.shape[1])
        scale = torch.from_numpy(diffusion_scale(ritz_values, config.diffusion_time, n_counted))
        return cls(embedding, parts, len(spread), n_counted, scale, n_clusters, config, seed)


class _Candidate(NamedTuple):
    """Clusters, their assigner, facts of its fit, and the rows of the smallest over those of an average one."""

    clusters: Clusters
    assigner: Assigner
    facts: dict[str, Any]
    smallest: float


def _k_means(sample: _Sample, normalize_rows: bool) -> _Candidate:
    points = clustering_coordinates(sample.embedding, sample.scale, normalize_rows)
    fit = fit_centroids(points.numpy(), sample.n_clusters, sample.config, sample.seed, sample.parts)
    told = {
        "n_clusters": sample.n_clusters,
        "n_components": len(sample.scale),
        "n_spread": sample.n_spread,
        "n_counted": sample.n_counted,
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


def _exchanged(sample: _Sample, edges: SampledEdges, tried: _Candidate) -> _Candidate:
    """Return the candidate after exchanges, with their number; itself where the normalised cut is not lower then."""
    normalize_rows, clusters = tried.assigner.normalize_rows, tried.clusters
    points = clustering_coordinates(sample.embedding, sample.scale, normalize_rows)
    ends = clustering_coordinates(edges.embedding, sample.scale, normalize_rows)
    labels, n_exchanges = exchanged(points.numpy(), clusters, edges, ends.numpy(), sample.seed)
    if n_exchanges:
        fit = dataclasses.replace(clusters, centroids=means_of_groups(points.numpy(), labels), labels=labels)
        found = _candidate(sample, normalize_rows, points, fit, tried.facts | {"exchanges": n_exchanges})
        cuts = [normalized_cut(*edges.clusters(one.assigner), sample.n_clusters) for one in (tried, found)]
        if cuts[1] < cuts[0]:
            return found
    return tried._replace(facts=tried.facts | {"exchanges": 0})


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
    smallest = float(np.bincount(nearest.numpy(), minlength=sample.n_clusters).min() * sample.n_clusters / len(points))
    assigner = Assigner(sample.scale, centroids, normalize_rows, variance).eval()
    return _Candidate(fit, assigner, told, smallest)

"""What a finished graph is like: its components, its hubs, and the degrees of its symmetrised form, as it streams by.

Components are those of all rows. Hubs and degrees are counted for sampled rows, all of them where they are few.
Shape letters: N rows, B rows of a block, K neighbours, S sampled rows.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distspectral.graph.components import component_labels
from distspectral.graph.store import StreamedGraph, edge_blocks
from distspectral.graph.stratified import SAMPLED_ROWS, StratifiedRows

logger = logging.getLogger(__name__)

HISTOGRAM_BINS = 40

HUB_ORPHANS, HUB_SKEWNESS = 0.1, 3.0
"""Share of orphans, and skewness of in-degrees, above both of which hubs decide who is near.

Measured on six sets of images, texts and cells: the one whose edges hubs spoil has .42 and 18, all others at most .014
and 4.3. Few neighbours a row make orphans without hubs, and copies of rows both."""
NAMED = 5
"""Rows of a kind, and components, that facts name at most."""
EDGE_FACTS = (
    "components",
    "largest_component_share",
    "small_components",
    "in_degree_max",
    "in_degree_skewness",
    "hub_rows",
    "orphans",
    "orphan_rows",
)
"""Facts that weights do not change."""


def graph_facts(graph: StreamedGraph, *, quiet: bool = False) -> dict[str, Any]:
    """Return ``k``, :func:`component_facts` and what a :class:`Tally` tells; warn of hubs unless ``quiet``."""
    return all_facts(tally_of(graph), graph.n_neighbors, component_facts(graph), quiet=quiet)


def all_facts(
    tally: Tally,
    n_neighbors: int,
    components: Mapping[str, Any] | None,
    of_same_edges: Mapping[str, Any] | None = None,
    *,
    quiet: bool = False,
) -> dict[str, Any]:
    """Return the facts of :func:`graph_facts`; warn where hubs rule it.

    Whether components are a reason to doubt shows once there are clusters: :func:`pieces_in_words`.

    Args:
        tally: of the whole graph.
        n_neighbors: K.
        components: of :func:`component_facts`; None where ``of_same_edges`` has them.
        of_same_edges: facts of a graph with the same edges and other weights, whose :data:`EDGE_FACTS` these are.
        quiet: warn of nothing.
    """
    if components is None:
        assert of_same_edges is not None, "somebody knows the components"
        return {"k": n_neighbors, **{name: of_same_edges[name] for name in EDGE_FACTS}, **tally.degree_facts()}
    facts = {"k": n_neighbors, **components, **tally.hub_facts(), **tally.degree_facts()}
    if quiet:
        return facts
    if words := hubs_in_words(facts):
        logger.warning("%s", words)
    if facts["components"] > 1:
        logger.info(
            "The graph has %d connected components, the largest with %.1f%% of the rows: the first functions tell "
            "them apart.",
            facts["components"],
            100 * facts["largest_component_share"],
        )
    return facts


class Tally:
    """Degrees, and numbers of rows that a row is a neighbour of, of sampled rows, added up as a graph streams by.

    Args:
        n_rows: N.
        count: S at most, of sampled rows.

    Attributes:
        rows: which they are.
        incoming: (S,) int64 of how many rows each is a neighbour, whatever the edges weigh.
        degree: (S,) float64 weight going out plus weight coming in: row sums of W + W'.
        total: weight of all edges.
    """

    def __init__(self, n_rows: int, count: int = SAMPLED_ROWS) -> None:
        self.rows = StratifiedRows(n_rows, count)
        self.incoming = np.zeros(len(self.rows), np.int64)
        self.degree = np.zeros(len(self.rows))
        self.total = 0.0

    def add(self, start: int, neighbors: NDArray[np.int64], affinities: NDArray[np.float32]) -> None:
        """Take a block of the graph.

        Args:
            start: its first row.
            neighbors: (B, K).
            affinities: (B, K).
        """
        weights = affinities.astype(np.float64)
        sums, own = weights.sum(axis=1), self.rows.stretch(start, start + len(neighbors))
        self.total += float(sums.sum())
        self.degree[own] += sums[self.rows.rows[own] - start]
        hits, places = self.rows.found(neighbors.ravel())
        # not bincount over all S: with small blocks that would be S work a block
        np.add.at(self.degree, places, weights.ravel()[hits])
        others = self.rows.rows[places] != start + hits // neighbors.shape[1]  # a missing neighbour is the row itself
        np.add.at(self.incoming, places[others], 1)

    def part(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], float]:
        """Return the places (any,) that were touched with what was counted there, and the weight of all edges."""
        touched = np.flatnonzero((self.incoming > 0) | (self.degree > 0))
        return touched, self.incoming[touched], self.degree[touched], self.total

    def merge(self, part: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], float]) -> None:
        """Add what another task counted for the same rows."""
        places, incoming, degree, total = part
        self.incoming[places] += incoming
        self.degree[places] += degree
        self.total += total

    def hub_facts(self) -> dict[str, Any]:
        """Return how unevenly the sampled rows are neighbours of others, whatever the edges weigh.

        ``in_degree_max``: of how many rows one of them is a neighbour, at most. ``in_degree_skewness``: third
        standardised moment of that number, 0 where all have the same. ``hub_rows``: the numbers of the :data:`NAMED`
        of them that are neighbours of most, these first. ``orphans``: share of them that are nobody's neighbour;
        ``orphan_rows``: the first of these.

        Reference: Radovanovic, Nanopoulos, Ivanovic, *Hubs in space*, JMLR 2010.
        """
        deviation = self.incoming - self.incoming.mean()
        spread = float(np.square(deviation).mean())
        return {
            "in_degree_max": int(self.incoming.max()),
            "in_degree_skewness": float((deviation**3).mean() / spread**1.5) if spread else 0.0,
            "hub_rows": self.rows.rows[largest(self.incoming, min(NAMED, len(self.rows)))].tolist(),
            "orphans": float(np.mean(self.incoming == 0)),
            "orphan_rows": self.rows.rows[np.flatnonzero(self.incoming == 0)[:NAMED]].tolist(),
        }

    def degree_facts(self) -> dict[str, Any]:
        """Return ``total_affinity``, the weight of all edges, and of the sampled rows the degrees.

        That is ``counted_rows``, how many they are, the smallest, median and largest degree, and a histogram.
        """
        counts, edges = np.histogram(self.degree, bins=HISTOGRAM_BINS)
        return {
            "total_affinity": self.total,
            "counted_rows": len(self.rows),
            "degree_min": float(self.degree.min()),
            "degree_median": float(np.median(self.degree)),
            "degree_max": float(self.degree.max()),
            "degree_histogram": {"counts": counts.tolist(), "edges": edges.tolist()},
        }


def tally_of(graph: StreamedGraph, block_rows: int | None = None, count: int = SAMPLED_ROWS) -> Tally:
    """Return the tally of a whole graph.

    Args:
        graph: N rows.
        block_rows: rows read at a time; by default about four million edges.
        count: S at most.
    """
    tally = Tally(graph.n_rows, count)
    for start, neighbors, affinities in edge_blocks(graph, block_rows):
        tally.add(start, neighbors, affinities)
    return tally


def largest(values: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """Return where the ``n`` largest values (any,) are, these first, ties by place."""
    places = np.flatnonzero(values >= np.partition(values, len(values) - n)[len(values) - n])
    found: NDArray[np.int64] = places[np.argsort(-values[places], kind="stable")[:n]]
    return found


def hubs_rule(facts: Mapping[str, Any]) -> bool:
    """Return whether hubs decide who is near, by :meth:`Tally.hub_facts`."""
    return bool(facts["orphans"] > HUB_ORPHANS and facts["in_degree_skewness"] > HUB_SKEWNESS)


def hubs_in_words(facts: Mapping[str, Any]) -> str | None:
    """Return what :meth:`Tally.hub_facts` that call for it mean and what helped most, None where all is well."""
    if not hubs_rule(facts):
        return None
    return (
        f"Hubs rule the graph: {facts['orphans']:.0%} of the rows are nobody's neighbour, and one is that of "
        f"{facts['in_degree_max']:,} others, so an edge says little of likeness. Unless many rows are copies, try "
        "principal components (representation: pca), and centred cosine (centered_cosine) if the metric is another."
    )


def pieces_are_clusters(facts: Mapping[str, Any], clusters: Mapping[str, Any] | None) -> bool:
    """Return whether no cluster holds rows of two components, so that falling apart is no reason to doubt clusters.

    Args:
        facts: of the graph.
        clusters: facts of the fit to its functions: ``n_clusters``, ``parts`` that were kept apart, which are all
            components where none is a mere fragment, and the share of rows that ``strayed``. None: not known yet.
    """
    n_components = facts["components"]
    if n_components == 1:
        return True
    if clusters is None:
        return False
    return bool(n_components == clusters["parts"] <= clusters["n_clusters"] and clusters["strayed"] == 0)


def pieces_in_words(facts: Mapping[str, Any], clusters: Mapping[str, Any] | None) -> str | None:
    """Return what to mend where :func:`pieces_are_clusters` says no, else None."""
    if pieces_are_clusters(facts, clusters):
        return None
    return (
        f"The graph has {facts['components']} components that no edge joins; the first functions tell them apart. "
        "Raise graph.n_neighbors or set graph.connect to nearest if they should be one."
    )


def component_facts(graph: StreamedGraph) -> dict[str, Any]:
    """Return ``components``, their number, and ``largest_component_share``, the largest one's share of all rows.

    ``small_components`` names the :data:`NAMED` largest others: ``size``, and the numbers of the first ``rows``.
    """
    labels = component_labels(graph)
    sizes = np.bincount(labels, minlength=graph.n_rows)
    n_components = int(np.count_nonzero(sizes))
    return {
        "components": n_components,
        "largest_component_share": float(sizes.max() / graph.n_rows),
        "small_components": [
            {"size": int(sizes[one]), "rows": np.flatnonzero(labels == one)[:NAMED].tolist()}
            for one in largest(sizes, min(n_components, NAMED + 1))[1:]
        ],
    }

"""A tree of small clusters: pairs merged one after the other by the affinity between them, and what any cut of it says.

The mergers are decided by a small matrix of affinities alone, so nothing here knows rows, ranks or files.
Shape letters: M leaves, S mergers made, C clusters.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from distspectral.errors import TooManyClustersError

SHARING = 0.9
"""p of the gain (B_ij - d_i d_j) / (d_i d_j)^p that decides the next merger: 0 is modularity, 1 average affinity.

Modularity merges two separate small groups before two halves of a large one, average affinity specks before either.
On 19 graphs and three seeds of leaves, asked for half, all and twice the classes and cut at their number, mean
ACC / ARI is .829 / .755 with 0, .836 / .760 with .5, .850 / .775 with .9 and .835 / .755 with 1."""
APART = -1.0
"""Gain, but for what chance gives, of two clusters that no edge joins: below that of all others."""
NO_EDGES = 1e-100
"""Share of the affinity that a cluster without edges is taken to have; products of two are no zero yet."""
ROUNDING = 1e-12
"""Share of all mass below which a rest is none."""
GONE = -1
"""Group of a cluster that was merged into another."""

Matrix: TypeAlias = "NDArray[np.float64] | sparse.sparray"


def dense(affinities: Matrix) -> NDArray[np.float64]:
    """Return affinities (M, M) as an array of their own."""
    found: NDArray[np.float64] = (
        np.array(affinities, float) if isinstance(affinities, np.ndarray) else affinities.toarray()
    )
    return found


def mergers(
    affinities: Matrix, levels: Sequence[NDArray[np.int64]], n_clusters: int, sharing: float = SHARING
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the pairs (S, 2) that are merged in turn, the second into the first, and the affinity (S,) of each.

    The pair of most gain, (B_ij - d_i d_j) / (d_i d_j)^sharing, is merged until C are left; B is ``affinities`` over
    their sum, d its row sums. On the last level, pairs that no edge joins come last; on others a speck that no edge
    joins to the rest of its group goes before a half of it. The largest gain of each row is kept. A merger may lower
    it; then it is a bound, and the row is looked through again only when no other one has more. That takes about
    O(M^2) in place of O(M^3).

    Args:
        affinities: (M, M) symmetric, at least 0; the diagonal holds twice the affinity inside a cluster.
        levels: (M,) groups of clusters, at least one; as long as two of a group of the first level are left, no others
            are merged, and so on. Of different groups of the last level none are merged.
        n_clusters: C, at least the number of groups of the last level, at most M.
        sharing: from 0 to 1, see :data:`SHARING`.

    Returns:
        The pairs, int64, and their affinities relative to chance, B_ij / (d_i d_j).

    Reference: Clauset, Newman, Moore, Finding community structure in very large networks, 2004 (sharing 0).
    """
    between = dense(affinities)
    n_leaves = len(between)
    assert len(np.unique(levels[-1])) <= n_clusters <= n_leaves, (levels[-1], n_clusters)
    between /= max(between.sum(), NO_EDGES)
    degrees = np.maximum(between.sum(1), NO_EDGES)
    powers = degrees**sharing
    pairs, found = np.empty((n_leaves - n_clusters, 2), np.int64), np.empty(n_leaves - n_clusters)
    groups = levels[0]

    def gains(one: int) -> NDArray[np.float64]:
        """Return what each merger with a cluster gains (M,), -inf where there is none."""
        chance = degrees[one] * degrees
        gained: NDArray[np.float64] = (between[one] - chance) / (powers[one] * powers)
        if level is levels[-1]:
            gained = np.where(between[one] > 0, gained, APART - chance)
        gained[groups != groups[one]] = -np.inf
        gained[one] = -np.inf
        return gained

    n_made, alive = 0, np.ones(n_leaves, bool)
    for level in levels:
        groups = np.where(alive, level, GONE)
        best, partners = np.where(alive, np.inf, -np.inf), np.full(n_leaves, GONE)
        n_left = max(n_clusters, len(np.unique(groups[alive])))
        while n_leaves - n_made > n_left:
            while partners[kept := int(best.argmax())] == GONE:
                gained = gains(kept)
                partners[kept] = gained.argmax()
                best[kept] = gained[partners[kept]]
            gone = int(partners[kept])
            pairs[n_made] = kept, gone
            found[n_made] = between[kept, gone] / (degrees[kept] * degrees[gone])
            n_made += 1
            between[kept] += between[gone]
            between[kept, kept] += between[kept, gone]
            between[:, kept] = between[kept]
            degrees[kept] += degrees[gone]
            powers[kept] = degrees[kept] ** sharing
            alive[gone], groups[gone], best[gone] = False, GONE, -np.inf
            partners[(partners == kept) | (partners == gone)] = GONE
            gained = gains(kept)
            nearer = gained >= best
            best[nearer], partners[nearer] = gained[nearer], kept
            partners[kept] = gained.argmax()
            best[kept] = gained[partners[kept]]
    return pairs, found


def merged_into(affinities: Matrix, n_clusters: int, groups: NDArray[np.int64], sharing: float) -> NDArray[np.int64]:
    """Return the cluster (M,), from 0 to C - 1, that each small one ends in; arguments as of :func:`mergers`."""
    merged = np.arange(len(groups))
    for kept, gone in mergers(affinities, [groups], n_clusters, sharing)[0]:
        merged[merged == gone] = kept
    return np.unique(merged, return_inverse=True)[1].reshape(-1)


@dataclasses.dataclass(frozen=True)
class Tree:
    """Leaves merged until one is left. Nodes 0 to M - 1 are the leaves, the others the mergers in their order.

    Attributes:
        children: (M - 1, 2) int64 of each merger.
        rows: (2M - 1,) int64.
        mass: (2M - 1,) float64, sums of degrees.
        height: (2M - 1,) float64 from 0, nondecreasing in the order of mergers: 1 / (1 + a) of the smallest affinity a
            that was merged so far; 0 of leaves. Where the run put parts that no edge joins into one cluster, that
            merger has the height of the one before.
        affinity: (M - 1,) float64 of each merger's children, relative to chance.
        conductance: (2M - 1,) float64: the share of the smaller side's edge ends whose edge leaves it.
        clusters: (M,) int64, the run's cluster of each leaf, from 0.
    """

    children: NDArray[np.int64]
    rows: NDArray[np.int64]
    mass: NDArray[np.float64]
    height: NDArray[np.float64]
    affinity: NDArray[np.float64]
    conductance: NDArray[np.float64]
    clusters: NDArray[np.int64]

    @property
    def n_leaves(self) -> int:
        """M."""
        return len(self.clusters)

    @property
    def n_clusters(self) -> int:
        """The run's own number of clusters, at which the tree is cut into just them."""
        return int(self.clusters.max()) + 1

    def parents(self) -> NDArray[np.int64]:
        """Return the parent (2M - 1,) of each node, -1 of the root."""
        above = np.full(len(self.rows), -1)
        above[self.children] = np.arange(self.n_leaves, len(self.rows))[:, None]
        return above

    def linkage(self) -> NDArray[np.float64]:
        """Return the mergers as SciPy has them, (M - 1, 4): children, height, number of leaves."""
        n_below = np.ones(len(self.rows))
        for node, (left, right) in enumerate(self.children, self.n_leaves):
            n_below[node] = n_below[left] + n_below[right]
        return np.column_stack([self.children, self.height[self.n_leaves :], n_below[self.n_leaves :]])

    def labels(self, n_clusters: int) -> NDArray[np.int64]:
        """Return the cluster (M,) of each leaf where the tree is cut into C, numbered by falling rows.

        At the run's own number they keep the numbers of the run.

        Raises:
            TooManyClustersError: more clusters than leaves.
        """
        if n_clusters > self.n_leaves:
            raise TooManyClustersError(
                f"{n_clusters} clusters were asked of a tree of {self.n_leaves} leaves; ask for at most as many",
                ["n_clusters"],
            )
        if n_clusters == self.n_clusters:
            return self.clusters
        kept, numbers = np.unique(self.tops(n_clusters), return_inverse=True)
        order = np.argsort(-self.rows[kept], kind="stable")
        ranks: NDArray[np.int64] = np.argsort(order)[numbers]
        return ranks

    def nodes(self, n_clusters: int) -> NDArray[np.int64]:
        """Return the node (C,) that each cluster of :meth:`labels` is."""
        found = np.empty(n_clusters, np.int64)
        found[self.labels(n_clusters)] = self.tops(n_clusters)
        return found

    def tops(self, n_clusters: int) -> NDArray[np.int64]:
        """Return the highest node (M,) above each leaf once the last C - 1 mergers are undone; C from 1 to M."""
        return _top_nodes(self.children[: self.n_leaves - n_clusters], self.n_leaves)

    def n_above(self, affinity: float) -> int:
        """Return the number of clusters that are left when all pairs of at least so much affinity are merged."""
        made = np.searchsorted(self.height[self.n_leaves :], 1 / (1 + affinity), side="right")
        return self.n_leaves - int(made)

    def n_of_rows(self, least: int) -> int:
        """Return the largest number of clusters all of which have so many rows; 1 if the rows are fewer."""
        n_clusters = 1
        for left, right in self.children[::-1]:
            if min(self.rows[left], self.rows[right]) < least:
                break
            n_clusters += 1
        return n_clusters


def grown(affinities: Matrix, rows: NDArray[np.int64], clusters: NDArray[np.int64]) -> Tree:
    """Return the tree of leaves: first those of a cluster are merged, then the clusters, those without an edge last.

    Args:
        affinities: (M, M) symmetric, the diagonal twice the affinity inside a leaf.
        rows: (M,) of each leaf.
        clusters: (M,) that each leaf is part of, every number from 0 to C - 1.
    """
    between, n_leaves = dense(affinities), len(rows)
    pairs, affinity = mergers(between, [clusters, np.zeros_like(clusters)], 1)
    nodes, total = np.arange(n_leaves), between.sum()
    all_rows, mass, inside = (np.zeros(2 * n_leaves - 1) for _ in range(3))
    all_rows[:n_leaves], mass[:n_leaves], inside[:n_leaves] = rows, between.sum(1), np.diag(between)
    children = np.empty((n_leaves - 1, 2), np.int64)
    for node, (kept, gone) in enumerate(pairs, n_leaves):
        children[node - n_leaves] = left, right = sorted((nodes[kept], nodes[gone]))
        all_rows[node], mass[node] = all_rows[left] + all_rows[right], mass[left] + mass[right]
        inside[node] = inside[left] + inside[right] + 2 * between[kept, gone]
        between[kept] += between[gone]
        between[:, kept] = between[kept]
        nodes[kept] = node
    height = np.zeros(2 * n_leaves - 1)
    is_within = np.arange(n_leaves - 1) < n_leaves - (clusters.max() + 1)
    steps = np.where(is_within & (affinity == 0), 0, 1 / (1 + affinity))
    height[n_leaves:] = np.maximum.accumulate(steps)
    return Tree(
        children,
        all_rows.astype(np.int64),
        mass,
        height,
        affinity,
        conductances(mass - inside, mass, float(total)),
        clusters,
    )


def refined(
    coarse: Tree,
    within: sparse.csr_array,
    mass: NDArray[np.float64],
    rows: NDArray[np.int64],
    owners: NDArray[np.int64],
) -> Tree:
    """Return the tree over fine leaves: merged inside each leaf of a coarse one first, then as that one is.

    Mergers inside different leaves go by falling affinity.

    Args:
        coarse: of M leaves.
        within: (F, F) symmetric affinities between fine leaves of one leaf, the diagonal twice that inside.
        mass: (F,) sums of degrees.
        rows: (F,) of each.
        owners: (F,) the leaf of each, every number from 0 to M - 1.
    """
    n_fine, total = len(owners), max(float(mass.sum()), NO_EDGES)
    order = np.argsort(owners, kind="stable")
    pairs: list[NDArray[np.int64]] = [np.empty((0, 2), np.int64)]
    affinities, keys = [np.empty(0)], [np.empty(0)]
    for own in np.split(order, np.cumsum(np.bincount(owners))[:-1]):
        if len(own) > 1:
            between = within[own][:, own].toarray()
            between[np.arange(len(own)), np.arange(len(own))] += mass[own] - between.sum(1)  # what leads out
            found, affinity = mergers(between, [np.zeros(len(own), np.int64)], 1)
            pairs.append(own[found])
            affinities.append(affinity * total / max(float(mass[own].sum()), NO_EDGES))
            keys.append(np.minimum.accumulate(affinities[-1]))
    turn = np.argsort(-np.concatenate(keys), kind="stable")
    inner, affinity = np.concatenate(pairs)[turn], np.concatenate(affinities)[turn]
    n_inner = len(inner)
    all_rows, all_mass, inside = (np.zeros(2 * n_fine - 1) for _ in range(3))
    all_rows[:n_fine], all_mass[:n_fine], inside[:n_fine] = rows, mass, within.diagonal()
    children, nodes = np.empty((n_fine - 1, 2), np.int64), np.arange(n_fine)
    for node, ((kept, gone), found_affinity) in enumerate(zip(inner, affinity, strict=True), n_fine):
        children[node - n_fine] = left, right = sorted((nodes[kept], nodes[gone]))
        all_rows[node], all_mass[node] = all_rows[left] + all_rows[right], all_mass[left] + all_mass[right]
        across = found_affinity * all_mass[left] * all_mass[right] / total
        inside[node] = inside[left] + inside[right] + 2 * across
        nodes[kept] = node
    tops = np.arange(2 * coarse.n_leaves - 1) + (n_fine + n_inner - coarse.n_leaves)
    firsts = order[np.searchsorted(owners[order], np.arange(coarse.n_leaves))]
    tops[: coarse.n_leaves] = _top_nodes(children[:n_inner], n_fine)[firsts]
    children[n_inner:] = np.sort(tops[coarse.children], axis=1)
    all_rows[n_fine + n_inner :] = coarse.rows[coarse.n_leaves :]
    all_mass[n_fine + n_inner :] = coarse.mass[coarse.n_leaves :]
    conductance = conductances(np.maximum(all_mass - inside, 0), all_mass, total)
    conductance[n_fine + n_inner :] = coarse.conductance[coarse.n_leaves :]
    height = np.zeros(2 * n_fine - 1)
    height[n_fine : n_fine + n_inner] = np.where(affinity == 0, 0, 1 / (1 + affinity))
    height[n_fine + n_inner :] = coarse.height[coarse.n_leaves :]
    return Tree(
        children,
        all_rows.astype(np.int64),
        all_mass,
        np.maximum.accumulate(height),
        np.concatenate([affinity, coarse.affinity]),
        conductance,
        coarse.clusters[owners],
    )


def _top_nodes(children: NDArray[np.int64], n_leaves: int) -> NDArray[np.int64]:
    """Return the highest node (M,) above each leaf once some mergers (S, 2) are made."""
    above = np.arange(n_leaves + len(children))
    above[children] = np.arange(n_leaves, len(above))[:, None]
    while not np.array_equal(higher := above[above], above):  # each time twice as high
        above = higher
    return above[:n_leaves]


def conductances(leaving: NDArray[np.float64], mass: NDArray[np.float64], total: float) -> NDArray[np.float64]:
    """Return the share of the smaller side's edge ends that lead across, 0 of everything, 1 where there are no edges.

    Args:
        leaving: (C,) affinity that leads out.
        mass: (C,) sums of degrees.
        total: of all.
    """
    smaller = np.minimum(mass, total - mass)
    whole = (total > 0) & (total - mass <= ROUNDING * total)
    shares = np.where(smaller > 0, leaving / np.where(smaller > 0, smaller, 1), 1.0)
    found: NDArray[np.float64] = np.where(whole, 0.0, np.clip(shares, 0, 1))
    return found


def cluster_facts(affinities: Matrix, rows: NDArray[np.int64], labels: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
    """Return facts (C,) by cluster of a cut, by name.

    Args:
        affinities: (M, M) as of :func:`grown`.
        rows: (M,) of each leaf.
        labels: (M,) cluster of each leaf, from 0.

    Returns:
        ``rows``, their ``share``, ``conductance``, the ``pieces`` that edges between its leaves join it into, the
        ``nearest`` other cluster by affinity relative to chance (-1 where there is none), and that ``affinity``.
    """
    n_clusters = int(labels.max()) + 1
    one_hot = sparse.csr_array((np.ones(len(labels)), (labels, np.arange(len(labels)))), (n_clusters, len(labels)))
    between = dense(one_hot @ sparse.csr_array(affinities) @ one_hot.T)
    mass, total = between.sum(1), between.sum()
    leaving = mass - np.diag(between)
    by_chance = np.maximum(np.outer(mass, mass), np.finfo(float).tiny) / max(total, np.finfo(float).tiny)
    relative = np.where(by_chance > 0, between / by_chance, 0.0)
    np.fill_diagonal(relative, -np.inf)
    counts = np.bincount(labels, rows, n_clusters).astype(np.int64)
    return {
        "rows": counts,
        "share": counts / max(counts.sum(), 1),
        "conductance": conductances(leaving, mass, float(total)),
        "pieces": pieces(affinities, rows, labels),
        "nearest": np.where(relative.max(1) > 0, relative.argmax(1), -1),
        "affinity": np.maximum(relative.max(1), 0),
    }


def pieces(affinities: Matrix, rows: NDArray[np.int64], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the components (C,) of each cluster's leaves that have rows; arguments as of :func:`cluster_facts`."""
    edges = sparse.coo_array(affinities)
    inside = (edges.data > 0) & (labels[edges.row] == labels[edges.col])
    ends = edges.row[inside], edges.col[inside]
    kept = sparse.csr_array((np.ones(len(ends[0])), ends), (len(labels), len(labels)))
    component = connected_components(kept, directed=False)[1]
    first = np.unique(component[rows > 0], return_index=True)[1]
    counts: NDArray[np.int64] = np.bincount(labels[rows > 0][first], minlength=int(labels.max()) + 1)
    return counts

"""What became of the clusters of an earlier run, by the rows that both runs have.

A cluster is kept where an earlier and a present one share at least half of the rows of both; it keeps its number. There
is hardly a choice: more than half of a cluster lies in one other at most. Of ties the pair that shares more rows, then
the lower number, is taken. Of the others, a present cluster of which one earlier cluster gave half is a split of it, an
earlier one half of which lies in one present cluster merged into it, and the rest was born or is gone.

Reference: Spiliopoulou, Ntoutsi, Theodoridis, Schult, *MONIC: modeling and monitoring cluster transitions*, KDD 2006,
whose survival, split, absorption, emergence and disappearance these are, with one threshold of a half.

Shape letters: n sampled rows, P earlier clusters, C present ones, R pairs that share rows.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Event = Literal["kept", "split", "merged", "born", "gone"]
EVENTS: tuple[Event, ...] = ("kept", "split", "merged", "born", "gone")

HALF = 0.5
"""Share of a cluster's rows that decides where it belongs."""
UNKNOWN = -1
"""The earlier cluster of a row that the earlier run does not have."""
FEWER_KNOWN = 0.5
"""Share of a cluster's rows that the earlier run has, over that of all rows, below which it is new whatever the few
that are known say."""


class Record(NamedTuple):
    """One thing that happened.

    Attributes:
        event: what.
        old: number of the earlier cluster; None of one that was born.
        new: number of the present cluster; None of one that is gone.
        rows: sampled rows in both; of one born, in it; of one gone, that were in it.
        share_of_old: these, of the earlier cluster's sampled rows.
        share_of_new: these, of the present cluster's sampled rows that the earlier run has.
        known_share: of the present cluster's sampled rows, that the earlier run has.
    """

    event: Event
    old: int | None
    new: int | None
    rows: int
    share_of_old: float | None
    share_of_new: float | None
    known_share: float | None


class Lineage(NamedTuple):
    """New numbers (C,) of the present clusters, and a record of each cluster: all but born ones have one as ``old``."""

    numbers: NDArray[np.int64]
    records: list[Record]


def lineage(old: NDArray[np.int64], new: NDArray[np.int64], n_old: int, n_new: int) -> Lineage:
    """Return how clusters are numbered, and what became of the earlier ones.

    Every present cluster has one record of being kept, split off or born, every earlier one one of being kept, merged
    or gone. Numbers run from 0 to C - 1, so one beyond is given up even by a cluster that is kept; what is born or
    split off takes a number that the earlier run did not have, as long as there is one.

    Args:
        old: (n,) earlier cluster of each sampled row, :data:`UNKNOWN` of rows that the earlier run does not have.
        new: (n,) present cluster.
        n_old: P.
        n_new: C.
    """
    known = old != UNKNOWN
    pairs, shared = np.unique(old[known] * n_new + new[known], return_counts=True)
    heads, tails = pairs // n_new, pairs % n_new
    old_rows, new_rows, all_rows = (
        np.bincount(rows, minlength=most) for rows, most in ((old[known], n_old), (new[known], n_new), (new, n_new))
    )
    of_old, of_new = shared / old_rows[heads], shared / new_rows[tails]
    kept = _one_to_one(heads, tails, np.where((of_old >= HALF) & (of_new >= HALF), shared, 0))
    numbers = _numbered({int(tails[pair]): int(heads[pair]) for pair in kept}, n_old, n_new)

    known_share = new_rows / np.maximum(all_rows, 1)
    usual = known.mean() if len(known) else 0.0
    records = []

    def record(event: Event, pair: int) -> None:
        head, tail = int(heads[pair]), int(tails[pair])
        shares = float(of_old[pair]), float(of_new[pair]), float(known_share[tail])
        records.append(Record(event, head, int(numbers[tail]), int(shared[pair]), *shares))

    for pair in kept:
        record("kept", pair)
    source, target = _largest(tails, shared, n_new), _largest(heads, shared, n_old)
    for tail in sorted(set(range(n_new)) - {int(tails[pair]) for pair in kept}):
        pair = source[tail]
        if pair >= 0 and of_new[pair] >= HALF and known_share[tail] >= FEWER_KNOWN * usual:
            record("split", pair)
        else:
            number, rows = int(numbers[tail]), int(all_rows[tail])
            records.append(Record("born", None, number, rows, None, None, float(known_share[tail])))
    for head in sorted(set(range(n_old)) - {int(heads[pair]) for pair in kept}):
        pair = target[head]
        if pair >= 0 and of_old[pair] >= HALF:
            record("merged", pair)
        else:
            records.append(Record("gone", head, None, int(old_rows[head]), None, None, None))
    return Lineage(numbers, sorted(records, key=lambda one: EVENTS.index(one.event)))


def _one_to_one(heads: NDArray[np.int64], tails: NDArray[np.int64], weights: NDArray[np.int64]) -> list[int]:
    """Return pairs (R,) of weight above 0 of which none shares an end, by head; the heaviest first, then the lowest."""
    taken_heads, taken_tails, found = set(), set(), []
    for pair in np.lexsort((tails, heads, -weights)).tolist():
        if weights[pair] and heads[pair] not in taken_heads and tails[pair] not in taken_tails:
            taken_heads.add(heads[pair])
            taken_tails.add(tails[pair])
            found.append(pair)
    return sorted(found, key=lambda pair: int(heads[pair]))


def _largest(ends: NDArray[np.int64], shared: NDArray[np.int64], n_clusters: int) -> NDArray[np.int64]:
    """Return for each cluster (n_clusters,) its pair that shares most rows, -1 where it shares none."""
    found = np.full(n_clusters, -1, np.int64)
    order = np.argsort(shared, kind="stable")
    found[ends[order]] = order  # the last one counts
    return found


def _numbered(kept: dict[int, int], n_old: int, n_new: int) -> NDArray[np.int64]:
    """Return the number (C,) of each present cluster, the earlier one where it is kept and below C."""
    numbers = np.full(n_new, -1, np.int64)
    for tail, head in kept.items():
        if head < n_new:
            numbers[tail] = head
    free = np.setdiff1d(np.arange(n_new), numbers)
    free = np.concatenate([free[free >= n_old], free[free < n_old]])
    others = np.flatnonzero(numbers < 0)
    numbers[others] = free[: len(others)]
    return numbers

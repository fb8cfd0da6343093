"""Labels beside clusters as the page shows them: a table where it fits, and which are most confused.

Shape letters: L classes, C clusters.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from distspectral.report.agreement import Agreement
from distspectral.report.data import Confusion
from distspectral.report.formats import count, percent
from distspectral.report.packing import shortened
from distspectral.text import plural

MOST_SIDES = 30
"""Labels, and clusters, up to which the whole table is shown."""
SHOWN_PAIRS = 8
LONGEST_NAME = 40


class Cell(NamedTuple):
    """Rows of a label in a cluster; their share of the label's, from 0 to 1."""

    rows: str
    share: str


class Row(NamedTuple):
    """A label's line of the table."""

    name: str
    cells: list[Cell]


class Confusions(NamedTuple):
    """What the page shows.

    Attributes:
        clusters: numbers of the columns, in the order of the best one-to-one matching.
        table: rows by label; empty where the page has no room.
        pairs: the most confused, in words.
        n: labels and clusters, in words.
    """

    clusters: list[int]
    table: list[Row]
    pairs: list[str]
    n: str


def in_order(found: Confusion) -> tuple[NDArray[np.int64], list[int]]:
    """Return rows (L, C) by class and cluster, and the numbers of the clusters, in the order of the best matching."""
    counts = np.asarray(found.counts)
    order = Agreement(counts, tuple(found.classes)).matched_clusters()
    return counts[:, order], order.tolist()


def confusions(found: Confusion) -> Confusions:
    """Return the table of labels and clusters, and the pairs of them that most rows stray into."""
    counts, names = np.asarray(found.counts), [str(one) for one in shortened(found.classes, LONGEST_NAME)]
    order = in_order(found)[1]
    totals, best = np.maximum(counts.sum(1), 1), counts.argmax(0)
    table = []
    if max(counts.shape) <= MOST_SIDES:
        shares = counts / totals[:, None]
        table = [
            Row(
                name,
                [Cell(count(counts[row, one]) if counts[row, one] else "", f"{shares[row, one]:.3f}") for one in order],
            )
            for row, name in enumerate(names)
        ]
    strayed = counts.copy()
    strayed[best, np.arange(counts.shape[1])] = 0  # a cluster's own label
    ranks = np.argsort(-strayed, axis=None, kind="stable")[:SHOWN_PAIRS]
    pairs = []
    for label, cluster in zip(*np.unravel_index(ranks, strayed.shape), strict=True):
        if n := int(strayed[label, cluster]):
            pairs.append(
                f"{plural(n, 'row')} of {names[label]} ({percent(n / totals[label])} of them) in cluster {cluster}, "
                f"which is mostly {names[best[cluster]]}"
            )
    return Confusions(order, table, pairs, f"{count(len(names))} x {count(counts.shape[1])}")

"""How many rows a sample takes of each leaf of a tree: level by level as evenly as the sizes allow.

A uniform sample is as uneven as the data. So the rows wanted are split evenly among the nodes of the highest level, but
no node gives more than it has; what each is to give is split likewise among its children, down to the leaves, and
within a leaf all rows are equally likely. Expected numbers are fractions, so that every row's chance is known exactly;
:func:`whole_numbers` rounds them without bias.

Reference: Vo et al., *Automatic data curation for self-supervised learning: a clustering-based approach*, TMLR 2024
(hierarchical sampling); their levels are those of repeated k-means, with whole numbers at each node.

Shape letters: M leaves, n nodes of a level, p nodes of the level above.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def split(
    parents: NDArray[np.int64], sizes: NDArray[np.int64], budgets: NDArray[np.float64], *, replace: bool
) -> NDArray[np.float64]:
    """Return what each node gives (n,) of what its parent is to give.

    Without replacement that is min(size, level), with the level of each parent such that its children give all of it;
    with replacement the same for all children that have rows.

    Args:
        parents: (n,) number of each node's parent.
        sizes: (n,) rows of each node.
        budgets: (p,) rows wanted of each parent; without replacement no more than its children have.
        replace: whether a row may be drawn more than once.
    """
    given = np.zeros(len(sizes))
    some = np.flatnonzero(sizes)
    order = some[np.lexsort((sizes[some], parents[some]))]
    parent, size = parents[order], sizes[order].astype(np.float64)
    children = np.bincount(parent, minlength=len(budgets))
    if replace:
        given[order] = budgets[parent] / children[parent]
        return given
    firsts = np.searchsorted(parent, parent)
    before = np.cumsum(size) - size
    before -= before[firsts]
    left = children[parent] - (np.arange(len(order)) - firsts)
    full = size * left <= budgets[parent] - before  # if all smaller ones give all they have, so does this one
    full_ones = np.bincount(parent, full, len(budgets))
    full_rows = np.bincount(parent, full * size, len(budgets))
    level = (budgets - full_rows) / np.maximum(children - full_ones, 1)
    given[order] = np.where(full, size, level[parent])
    return given


def expected_rows(
    levels: Sequence[NDArray[np.int64]], sizes: NDArray[np.int64], n_wanted: int, *, replace: bool
) -> NDArray[np.float64]:
    """Return how many rows (M,) a sample is expected to take of each leaf.

    Args:
        levels: (M,) the node of each leaf, from the highest level to the lowest, each finer than the one before;
            the leaves themselves come last and are not named.
        sizes: (M,) rows of each leaf.
        n_wanted: rows wanted; without replacement no more than there are.
        replace: whether a row may be drawn more than once.
    """
    above, budgets = np.zeros(len(sizes), np.int64), np.array([float(n_wanted)])
    for level in (*levels, np.arange(len(sizes))):
        _, first, nodes = np.unique(level, return_index=True, return_inverse=True)
        rows = np.bincount(nodes, sizes).astype(np.int64)
        budgets = split(above[first], rows, budgets, replace=replace)
        above = nodes
    return budgets


def whole_numbers(expected: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Return whole numbers (M,) with these expectations, each rounded up or down, of the same sum.

    Systematic sampling: one random offset moves the running sum against the whole numbers.

    Args:
        expected: (M,) that sum to a whole number.
        rng: draws the offset.
    """
    total = round(float(expected.sum()))
    sums = np.floor(np.cumsum(expected) + rng.random() + 1e-9).astype(np.int64)  # whole ones are not lost to rounding
    sums[-1:] = total
    return np.diff(np.minimum(sums, total), prepend=0)


def evenness(counts: NDArray[np.int64]) -> float:
    """Return the entropy of counts (C,) over that of even ones: 1 where all are equal, 0 where one has all."""
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum() / np.log(max(len(counts), 2)))

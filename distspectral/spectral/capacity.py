"""How large a network would have to be for the worst dataset, and whether this one fits edges it never drew.

The bounds are orders of growth without constants: they say what cannot suffice in the worst case, never what does.
References: Shaham et al., SpectralNet, ICLR 2018 (spectral clustering of n points has VC dimension at least n/10);
Shalev-Shwartz and Ben-David, Understanding Machine Learning, 2014 (sigmoid networks, v nodes and e edges: v^2 e^2);
Bartlett, Harvey, Liaw and Mehrabian, JMLR 2019 (piecewise linear ones of L layers: e L log e).
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence

PARTED = 0.1
"""Excess of one Ritz sum over the other above which they are said to have parted."""


@dataclasses.dataclass(frozen=True)
class Capacity:
    """A perceptron beside the worst case of N rows.

    Attributes:
        needed: N / 10, what the VC dimension is at least.
        nodes: v, hidden and output units.
        edges: e, weights.
        sigmoid: v^2 e^2.
        relu: e L log2 e.
    """

    needed: float
    nodes: int
    edges: int
    sigmoid: float
    relu: float

    @property
    def suffices(self) -> bool:
        """Whether the order for ReLU layers, which ours are, reaches what is needed."""
        return self.relu >= self.needed


def capacity(n_rows: float, widths: Sequence[int]) -> Capacity:
    """Return the bounds of a perceptron.

    Args:
        n_rows: N.
        widths: of its input, its hidden layers and its output.
    """
    nodes, edges = sum(widths[1:]), sum(a * b for a, b in itertools.pairwise(widths))
    relu = edges * (len(widths) - 1) * math.log2(max(edges, 2))
    return Capacity(n_rows / 10, nodes, edges, float(nodes) ** 2 * float(edges) ** 2, relu)


def least_factor(n_rows: float, widths: Sequence[int]) -> int:
    """Return by how much the hidden layers must be widened for the ReLU order to reach N / 10, 1 if it does."""
    factor = 1
    while not capacity(n_rows, [widths[0], *(factor * width for width in widths[1:-1]), widths[-1]]).suffices:
        factor += 1
    return factor


@dataclasses.dataclass(frozen=True)
class EdgeCheck:
    """The Ritz sum over edges training mostly never drew, beside the one over those its last layer was solved by.

    Attributes:
        drawn: sum of the kept Ritz values over the edges that the last layer was solved by, else of the last window.
        every: the same over every edge of the graph.
        unseen: expected share of the edges that no step drew, were all equally heavy.
    """

    drawn: float
    every: float
    unseen: float

    @property
    def excess(self) -> float:
        """How far the sum over every edge is above the other, relatively."""
        return self.every / self.drawn - 1 if self.drawn > 0 else math.inf

    @property
    def advice(self) -> str:
        """What to do about it, in a sentence."""
        if self.excess > PARTED:
            return (
                "the network fits the edges it drew better than the others: stop earlier, draw more edges a step or "
                "take a narrower network"
            )
        if self.unseen < 0.5:
            return "most edges were drawn, so this cannot show overfitting; embed held-out rows to see it"
        return "they agree: if both are too high, a wider network or more steps may lower them"


def edge_check(
    window: Sequence[float], every: Sequence[float], n_kept: int, edges_drawn: float, n_edges: float
) -> EdgeCheck:
    """Return the check.

    Args:
        window: Ritz values that the last window of training tells, ascending.
        every: Ritz values over all edges, ascending.
        n_kept: how many are kept.
        edges_drawn: edges drawn in all of training, repeats counted.
        n_edges: edges of the graph.
    """
    return EdgeCheck(sum(window[:n_kept]), sum(every[:n_kept]), math.exp(-edges_drawn / max(n_edges, 1.0)))

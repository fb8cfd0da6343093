"""The panel that sets the network's size beside the data, in words."""

from __future__ import annotations

from distspectral.report.data import CapacityFacts
from distspectral.report.formats import count, number, percent


def capacity_facts(capacity: CapacityFacts) -> list[tuple[str, str]]:
    """Return names and values; the check on edges comes first, for it says more than the bounds."""
    worst = "reaches" if capacity.relu >= capacity.needed else "is below"
    return [
        ("Ritz sum, last edges drawn in training", number(capacity.drawn)),
        ("Ritz sum, every edge of the graph", number(capacity.every)),
        ("Edges that training never drew", percent(capacity.unseen)),
        ("What that says", capacity.advice),
        ("Network", "-".join(count(width) for width in capacity.widths)),
        ("Least VC dimension of clustering so many rows", f"a tenth of them, {number(capacity.needed)}"),
        ("Order of this network's", f"{number(capacity.relu)} {worst} it; {number(capacity.sigmoid)} were it sigmoid"),
    ]

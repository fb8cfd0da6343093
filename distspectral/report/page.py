"""The page: figures, their captions, the facts and what its script draws, in one HTML file that needs nothing else.

A policy in its head lets the browser run the script whose hash it names and nothing else, and load nothing at all.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Sequence
from datetime import datetime
from importlib import resources
from typing import Any, NamedTuple

import yaml
from jinja2 import Environment, FunctionLoader, StrictUndefined
from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup

from distspectral.graph.trial import NAMES, Trial
from distspectral.plotting import CATEGORIES
from distspectral.report import plots
from distspectral.report.certificate import CAPTION, certificate_facts
from distspectral.report.checks import headline
from distspectral.report.confusions import confusions
from distspectral.report.data import (
    ClusterFacts,
    EdgeFacts,
    GraphFacts,
    ReportData,
    RowSample,
    SpectrumFacts,
    TaughtFacts,
    TrainingFacts,
)
from distspectral.report.formats import MISSING, column, count, duration, n_bytes, number, percent
from distspectral.report.next_steps import files, readers, steps
from distspectral.report.payload import payload
from distspectral.text import plural

SCRIPTS = ("packed.js", "map.js", "tree.js", "table.js", "page.js")
"""In the order in which they are one script."""
SECTIONS = (
    ("result", "What are my clusters?"),
    ("trust", "Can I trust them?"),
    ("next", "What next?"),
    ("made", "How it was made"),
)

MARKS = {"good": "✓", "look": "!", "open": "?"}
STATES = {"good": "good", "look": "needs a look", "open": "not known"}
_MAX_TABLE_ROWS = 20


class Card(NamedTuple):
    """A fact that matters, large."""

    value: str
    meaning: str


class Plot(NamedTuple):
    """A figure with the sentence that says how to read it; ``svg`` is trusted, everything else is escaped."""

    title: str
    svg: Markup
    caption: str


class ClusterRow(NamedTuple):
    """One line of the cluster table."""

    cluster: int
    rows: str
    share: str
    mean_distance: str
    silhouette: str
    conductance: str
    nearest: str


def render(data: ReportData) -> str:
    """Return the report as one HTML page without anything to load.

    The same data give the same text. Every string of the data is escaped, or reaches the script as JSON.

    Args:
        data: the run's facts; history, labels, gaps, scores, rows and tree may be missing.
    """
    return filled(
        "page.html.j2",
        script="\n".join(_read(name) for name in SCRIPTS),
        payload=htmlsafe_json_dumps(payload(data) | {"palette": CATEGORIES}, json.dumps, allow_nan=False),
        kind="Spectral embedding and clustering",
        name=data.name,
        made=date_in_words(data.created_at),
        version=data.version,
        sections=SECTIONS,
        cards=_cards(data),
        drawn=_drawn(data.rows, data.n_rows) if data.rows.n_rows else "",
        candidates=data.candidates,
        clusters=_cluster_rows(data.clusters),
        clusters_title=_clusters_title(data.clusters),
        found_by=f"{data.clusters.found_by[:1].upper()}{data.clusters.found_by[1:]}",
        headline=headline(data.checks),
        checks=data.checks,
        marks=MARKS,
        states=STATES,
        confusion=confusions(data.confusion) if data.confusion else None,
        trust=_trust_plots(data),
        trained=bool(data.training.history),
        graph=_graph_facts(data.graph),
        certificate=certificate_facts(data.certificate) if data.certificate else [],
        steps=steps(data),
        readers=readers(data),
        files=files(data),
        made_plots=_made_plots(data),
        edges=_edge_facts(data.edges) if data.edges else [],
        taught=_taught_facts(data.taught) if data.taught else [],
        facts=_made_facts(data),
        **settings_text(data.config),
    )


def filled(template: str, script: str, **parts: Any) -> str:
    """Return a template of this package with its parts, the style sheet and the policy filled in.

    Args:
        template: name of the file.
        script: of the page; empty where it has none.
        parts: by the names that the template knows.
    """
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=FunctionLoader(_read),
    )
    css = _read("page.css")
    made = {"css": Markup(css), "script": Markup(script), "policy": _policy(css, script)}
    return environment.get_template(template).render(made | parts)


def _read(name: str) -> str:
    return resources.files("distspectral.report").joinpath(name).read_text("utf-8")


def date_in_words(moment: datetime) -> str:
    """Return when a page was made."""
    return f"{moment.day} {moment:%B %Y, %H:%M %Z}".strip()


def settings_text(config: dict[str, Any]) -> dict[str, str]:
    """Return the config as YAML, and how many settings it has, by the names of the layout."""
    text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True, width=100) if config else ""
    return {"config": text, "n_settings": plural(_n_leaves(config), "setting")}


def _policy(css: str, script: str) -> str:
    """Return the Content-Security-Policy: one script and one style sheet by their hashes, no request at all."""
    return "; ".join(
        [
            "default-src 'none'",
            f"script-src {_hash(script)}" if script else "script-src 'none'",
            f"style-src {_hash(css)}",
            f"style-src-elem {_hash(css)}",
            "style-src-attr 'unsafe-inline'",  # of figures, and the shades of tables
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _cards(data: ReportData) -> list[Card]:
    cards = [
        Card(count(data.n_rows), "rows"),
        Card(count(data.dim), "dimensions"),
        Card(count(data.clusters.n_clusters), "cluster" if data.clusters.n_clusters == 1 else "clusters"),
    ]
    if data.evaluation is not None:
        cards += [
            Card(f"{data.evaluation.acc:.3f}", "ACC, rows in the right cluster"),
            Card(f"{data.evaluation.nmi:.3f}", "NMI, information shared with labels"),
            Card(f"{data.evaluation.ari:.3f}", "ARI, agreement beyond chance"),
        ]
    cards.append(Card(duration(sum(data.seconds.values())), "total time"))
    return [*cards, Card(n_bytes(data.peak_rss_bytes), "peak memory, all processes")]


def _drawn(sample: RowSample, n_rows: int) -> str:
    """Say which rows the map shows, and what their places are."""
    shown = f"All {count(n_rows)} rows"
    if sample.n_rows < n_rows:
        shown = f"A random {count(sample.n_rows)} of {count(n_rows)} rows"
    if sample.density is not None:
        shown += f", over the density of {count(sample.density.n_rows)}"
    if sample.place == "map":
        return f"{shown}. Rows that lie together are near in the graph; distances between far ones say little."
    return (
        f"{shown}. This run has no map, so rows lie by their ranks in the first two eigenfunctions that are not "
        "constant: clusters that overlap here may be apart in further functions."
    )


def _clusters_title(clusters: ClusterFacts) -> str:
    if clusters.n_clusters > _MAX_TABLE_ROWS:
        half = _MAX_TABLE_ROWS // 2
        return f"The {half} largest and the {half} smallest of {count(clusters.n_clusters)} clusters"
    return "Clusters in numbers"


def _cluster_rows(clusters: ClusterFacts) -> list[ClusterRow]:
    """Return the clusters by number, or the largest and smallest if there are too many for a table."""
    shown = list(range(clusters.n_clusters))
    if len(shown) > _MAX_TABLE_ROWS:
        by_size = sorted(shown, key=lambda cluster: -clusters.sizes[cluster])
        shown = by_size[: _MAX_TABLE_ROWS // 2] + by_size[-_MAX_TABLE_ROWS // 2 :]
    total = sum(clusters.sizes) or 1
    shares = column([100 * clusters.sizes[cluster] / total for cluster in shown])
    told = (clusters.mean_distance, clusters.silhouette, clusters.conductance)
    distances, silhouettes, conductances = (column([values[cluster] for cluster in shown]) for values in told)
    nearest = [MISSING if (other := clusters.nearest[cluster]) < 0 else str(other) for cluster in shown]
    return [
        ClusterRow(cluster, count(clusters.sizes[cluster]), f"{share}%", distance, silhouette, conductance, other)
        for cluster, share, distance, silhouette, conductance, other in zip(
            shown, shares, distances, silhouettes, conductances, nearest, strict=True
        )
    ]


def _trust_plots(data: ReportData) -> list[Plot]:
    figures = []
    if data.certificate is not None:
        figures.append(Plot("Error of each function", Markup(plots.function_errors(data.certificate)), CAPTION))
    if data.graph.degree_histogram.counts:
        figures.append(
            Plot(
                "Degrees of the graph",
                Markup(plots.degree_histogram(data.graph.degree_histogram)),
                "Rows at the far right are hubs that many others are near to, rows at the far left are outliers: a "
                "long tail on either side means that few rows carry much of the graph or hardly hang on to it.",
            )
        )
    return figures


def _spectrum_caption(spectrum: SpectrumFacts) -> str:
    if len(spectrum.ritz_values) == 1:
        return "Only one function was learned, so there is no gap to look for."
    all_of_them = spectrum.n_kept >= len(spectrum.ritz_values)
    kept = "All" if all_of_them else f"The {count(spectrum.n_kept)} lowest of"
    return (
        f"{kept} {plural(len(spectrum.ritz_values), 'function')} form the embedding. A jump after the n-th "
        "value speaks for n clusters; the tree weighs what mergers cost beside it."
    )


def _convergence(training: TrainingFacts) -> str:
    """Say by how much the sum of the Ritz values still moved in the last quarter of the steps or somewhat more."""
    last = training.history[-1]
    before = [window for window in training.history if window.step <= 0.75 * last.step]
    if not before or not math.isfinite(last.ritz_sum) or not before[-1].ritz_sum > 0:
        return ""
    change = last.ritz_sum / before[-1].ritz_sum - 1
    verb = "rose" if change > 0 else "fell"
    span = f"the last {last.step - before[-1].step:,} of {last.step:,} steps"
    return f"Their sum {verb} by {percent(abs(change))} over {span}."


def _graph_facts(graph: GraphFacts) -> list[tuple[str, str]]:
    pieces = "one: every row is reachable from every other" if graph.components == 1 else count(graph.components)
    if graph.links and graph.components_before:
        pieces += f" ({count(graph.components_before)} before {count(graph.links)} links were added)"
    search = "every row against every row"
    if graph.cells > 1:
        search = f"in {count(graph.cells)} overlapping cells, a row in {number(graph.copies)} of them"
    words = NAMES[graph.metric] if graph.trial is None else f"{NAMES[graph.metric]}. {Trial.of(graph.trial).in_words}"
    facts = [("Neighbours were searched", search), ("Among", graph.space), ("Distances", words)]
    if graph.given is not None:
        facts = [("Neighbours were made elsewhere", graph.given)]
    if graph.predicted_recall is not None and graph.reached_recall is not None:
        recall = f"{percent(graph.reached_recall)} ({percent(graph.predicted_recall)} predicted)"
        facts.append(("True neighbours found, by a sample", recall))
    hubs = []
    if graph.in_degree_max is not None and graph.in_degree_skewness is not None and graph.orphans is not None:
        most = f"{count(graph.in_degree_max)} rows, skewness {number(graph.in_degree_skewness)}"
        hubs = [("A row is neighbour of at most", most), ("Rows that are nobody's neighbour", percent(graph.orphans))]
    return [
        *facts,
        ("Connected components", pieces),
        ("Rows in the largest component", percent(graph.largest_component_share)),
        ("Neighbours of each row", count(graph.n_neighbors)),
        *hubs,
        ("Affinity", graph.affinity),
        ("Smallest degree", number(graph.degree_min)),
        ("Median degree", number(graph.degree_median)),
        ("Largest degree", number(graph.degree_max)),
    ]


def _made_plots(data: ReportData) -> list[Plot]:
    figures = []
    if data.spectrum.ritz_values:
        caption = _spectrum_caption(data.spectrum)
        figures.append(Plot("Eigenvalue spectrum", Markup(plots.spectrum(data.spectrum)), caption))
    if any(window.ritz_values for window in data.training.history):
        figures.append(
            Plot(
                "Convergence of the Ritz values",
                Markup(plots.ritz_curves(data.training.history, data.spectrum.n_kept)),
                "Each line is one learned function, lower is smoother on the graph: lines that are flat at the right "
                "have converged; a line that falls out of the plot belongs to a constant function. "
                f"{_convergence(data.training)}",
            )
        )
    if data.seconds:
        figures.append(
            Plot(
                "Time of each stage",
                Markup(plots.stage_seconds(data.seconds)),
                "Wall-clock time of the stages in the order in which they ran; the longest bar is where more "
                "workers or a smaller setting help most.",
            )
        )
    if data.training.history:
        figures.append(
            Plot(
                "Training loss",
                Markup(plots.loss_curve(data.training.history)),
                "The loss should fall and level off; the lower strip shows the learning rate that went with it.",
            )
        )
    return figures


def _taught_facts(taught: TaughtFacts) -> list[tuple[str, str]]:
    return [
        ("Products with the graph that polished the functions", count(taught.passes)),
        ("Steps in which the network learned them", count(taught.steps)),
        ("Left unexplained of their squares, at rows that were taught", percent(taught.loss)),
        ("Likewise, at rows that were not", percent(taught.held_out_loss)),
    ]


def _edge_facts(edges: EdgeFacts) -> list[tuple[str, str]]:
    return [
        ("Ritz sum, last edges drawn in training", number(edges.drawn)),
        (
            "Ritz sum, every edge of the graph"
            if edges.sampled_rows is None
            else f"Ritz sum, edges of {count(edges.sampled_rows)} sampled rows",
            number(edges.every),
        ),
        ("Edges that training never drew", percent(edges.unseen)),
        ("What that says", edges.advice),
    ]


def _made_facts(data: ReportData) -> list[tuple[str, str]]:
    training = data.training
    speed = count(training.edges_per_second) if training.edges_per_second >= 10 else number(training.edges_per_second)
    return [
        ("Data", f"{plural(data.n_rows, 'row')} by {count(data.dim)} {data.dtype}, {plural(data.n_shards, 'shard')}"),
        ("Training", f"{plural(training.steps, 'step')}, {speed} edges per second"),
        ("Training stopped because", training.stopped_because or MISSING),
        ("Learning rate at the end", number(training.history[-1].learning_rate) if training.history else MISSING),
        ("Peak memory, all processes", n_bytes(data.peak_rss_bytes)),
        ("distspectral", data.version),
    ]


def _n_leaves(value: Any) -> int:
    """Return the number of plain values in a nested config."""
    if isinstance(value, dict):
        return sum(_n_leaves(item) for item in value.values())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return sum(_n_leaves(item) for item in value)
    return 1

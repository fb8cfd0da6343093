"""The page: figures, their captions and the facts, put into one HTML file that needs nothing else."""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib import resources
from typing import Any, NamedTuple

import yaml
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from distspectral.graph.metric import metric_in_words
from distspectral.report import plots
from distspectral.report.capacity import capacity_facts
from distspectral.report.certificate import CAPTION, certificate_facts
from distspectral.report.data import ClusterFacts, GraphFacts, ReportData, ScatterSample, SpectrumFacts, TrainingFacts
from distspectral.report.drawing import CATEGORIES
from distspectral.report.formats import MISSING, column, count, duration, n_bytes, number, percent, plural

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
    """Return the report as one HTML page without scripts and without anything to load.

    The same data give the same text. Every string of the data is escaped.

    Args:
        data: the run's facts; history, labels, gaps, scores and notes may be missing.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    files = resources.files("distspectral.report")
    template = environment.from_string(files.joinpath("page.html.j2").read_text("utf-8"))
    return template.render(
        css=Markup(files.joinpath("page.css").read_text("utf-8")),
        name=data.name,
        made=f"{data.created_at.day} {data.created_at:%B %Y, %H:%M %Z}".strip(),
        version=data.version,
        cards=_cards(data),
        notes=data.notes,
        result=_result_plots(data),
        clusters=_cluster_rows(data.clusters),
        clusters_title=_clusters_title(data.clusters),
        trust=_trust_plots(data),
        trained=bool(data.training.history),
        graph=_graph_facts(data.graph),
        certificate=certificate_facts(data.certificate) if data.certificate else [],
        capacity=capacity_facts(data.capacity) if data.capacity else [],
        made_plots=_made_plots(data),
        facts=_made_facts(data),
        config=yaml.safe_dump(data.config, sort_keys=False, allow_unicode=True, width=100) if data.config else "",
        n_settings=plural(_n_leaves(data.config), "setting"),
    )


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


def _result_plots(data: ReportData) -> list[Plot]:
    figures = []
    sample = data.scatter
    if sample.x:
        figures.append(
            Plot(
                "The embedding by cluster",
                Markup(plots.scatter(sample.x, sample.y, sample.cluster, "cluster")),
                f"{_sampled(sample, data.n_rows)}, placed by the first two coordinates that are not constant and "
                f"coloured by cluster{_repeats(sample.cluster)}: clusters that overlap here may still be apart in "
                "further coordinates.",
            )
        )
    if sample.labels:
        figures.append(
            Plot(
                "The embedding by label",
                Markup(plots.scatter(sample.x, sample.y, sample.labels, "label")),
                f"The same rows coloured by their label{_repeats(sample.labels)}, which the training never saw: where "
                "a colour here fills one cluster on the other plot, the two agree.",
            )
        )
    if data.clusters.n_clusters > plots.MAX_BARS:
        reading = (
            "Each point of the curve is a cluster, the largest first: a steep left end means that few clusters hold "
            "most rows, a drop at the right that many are tiny."
        )
    elif data.clusters.n_clusters == 1:
        reading = "All rows are in one cluster."
    else:
        reading = (
            "Each bar is a cluster: a bar far from the dashed line is a cluster far from an equal share of the rows."
        )
    figures.append(Plot("Cluster sizes", Markup(plots.cluster_sizes(data.clusters)), reading))
    return figures


def _sampled(sample: ScatterSample, n_rows: int) -> str:
    if sample.n_rows_sampled >= n_rows:
        return f"All {count(n_rows)} rows"
    return f"A random sample of {count(sample.n_rows_sampled)} of the {count(n_rows)} rows"


def _repeats(groups: Sequence[int] | Sequence[int | str]) -> str:
    return " (ten colours, repeated)" if len(set(groups)) > len(CATEGORIES) else ""


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
    if data.spectrum.ritz_values:
        caption = _spectrum_caption(data.spectrum, data.clusters.n_clusters)
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


def _spectrum_caption(spectrum: SpectrumFacts, n_clusters: int) -> str:
    if len(spectrum.ritz_values) == 1:
        return "Only one function was learned, so there is no gap to look for."
    all_of_them = spectrum.n_kept >= len(spectrum.ritz_values)
    kept = "All" if all_of_them else f"The {count(spectrum.n_kept)} lowest of"
    caption = (
        f"{kept} {plural(len(spectrum.ritz_values), 'learned function')} form the embedding; a jump after the n-th "
        "value is a sign of n clusters. "
    )
    suggested = spectrum.suggested_n_clusters
    if suggested is None:
        return caption + "No gap stands out."
    used = "the number used here" if suggested == n_clusters else f"this run used {count(n_clusters)}"
    return caption + f"The largest relative gap suggests {plural(suggested, 'cluster')}, {used}."


def _convergence(training: TrainingFacts) -> str:
    """Say by how much the sum of the Ritz values still moved in the last quarter of the steps."""
    last = training.history[-1]
    before = [window for window in training.history if window.step <= 0.75 * last.step]
    if not before or not math.isfinite(last.ritz_sum) or not before[-1].ritz_sum > 0:
        return ""
    change = last.ritz_sum / before[-1].ritz_sum - 1
    verb = "rose" if change > 0 else "fell"
    return f"Their sum {verb} by {percent(abs(change))} over the last quarter of the steps."


def _graph_facts(graph: GraphFacts) -> list[tuple[str, str]]:
    pieces = "one: every row is reachable from every other" if graph.components == 1 else count(graph.components)
    if graph.links and graph.components_before:
        pieces += f" ({count(graph.components_before)} before {count(graph.links)} links were added)"
    search = "every row against every row"
    if graph.cells > 1:
        search = f"in {count(graph.cells)} overlapping cells, a row in {number(graph.copies)} of them"
    words = metric_in_words(graph.model_dump())
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


def _made_facts(data: ReportData) -> list[tuple[str, str]]:
    training = data.training
    speed = count(training.edges_per_second) if training.edges_per_second >= 10 else number(training.edges_per_second)
    return [
        ("Data", f"{plural(data.n_rows, 'row')} by {count(data.dim)} {data.dtype}, {plural(data.n_shards, 'shard')}"),
        ("Training", f"{plural(training.steps, 'step')}, {speed} edges per second"),
        ("Found by", data.clusters.found_by),
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

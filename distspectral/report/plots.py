"""One function per plot of the report; each returns an SVG element as text.

Shape letters: E trained functions, C clusters, S sampled rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.lines import Line2D

from distspectral.report.data import CertificateFacts, ClusterFacts, Histogram, SpectrumFacts, TrainingWindow
from distspectral.report.drawing import (
    BLUE,
    CATEGORIES,
    FAINT,
    INK,
    MUTED,
    ORANGE,
    PAPER,
    category_colour,
    drawing,
    log_ticks,
    number_ticks,
    printable,
    whole_ticks,
)
from distspectral.report.formats import count, duration, number, plural
from distspectral.spectral.certificate import FUNCTION_LIMIT

MAX_BARS = 60
"""Up to this many clusters each has a bar; beyond, the sorted sizes form a curve."""
MAX_NAMED_GROUPS = 30
"""Up to this many groups of a scatter plot carry their name; more names would hide the points."""
_LOG_SPAN = 20.0


def stage_seconds(seconds: dict[str, float]) -> str:
    """Draw the wall-clock time of each stage as a horizontal bar with its number."""
    values = list(seconds.values())
    longest = max(values, default=0.0)
    size, unit = (3600, "hours") if longest >= 7200 else (60, "minutes") if longest >= 120 else (1, "seconds")
    with drawing("Time of each stage", height=max(1.9, 0.9 + 0.36 * len(values))) as result:
        ax = result.figure.subplots()
        places = np.arange(len(values))
        ax.barh(places, [value / size for value in values], height=0.62, color=BLUE)
        for place, value in zip(places, values, strict=True):
            ax.annotate(duration(value), (value / size, place), xytext=(5, 0), textcoords="offset points", va="center")
        ax.set_yticks(places, [printable(stage) for stage in seconds], color=INK, parse_math=False)
        ax.invert_yaxis()
        ax.set_xlim(0, (longest / size or 1.0) * 1.22)
        ax.tick_params(axis="y", length=0)
        ax.grid(axis="y", visible=False)
        ax.xaxis.set_major_formatter(lambda value, _: number(value))
        ax.set_xlabel(f"wall-clock time ({unit})")
    return result.svg


def loss_curve(history: Sequence[TrainingWindow]) -> str:
    """Draw loss and learning rate over the steps; the loss is on a log axis if it is positive and spans a decade."""
    steps = [window.step for window in history]
    losses = [window.loss for window in history]
    with drawing("Training loss and learning rate by step") as result:
        ax, rate = result.figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        marker = "o" if len(history) < 3 else None
        ax.plot(steps, losses, color=BLUE, linewidth=1.6, marker=marker)
        finite = np.asarray(losses)[np.isfinite(losses)]
        if finite.size and finite.min() > 0 and finite.max() > 10 * finite.min():
            log_ticks(ax, float(finite.min()), float(finite.max()), "loss")
        else:
            ax.set_ylabel("loss")
            number_ticks(ax)
        rate.plot(steps, [window.learning_rate for window in history], color=MUTED, linewidth=1.4, marker=marker)
        rate.set_ylim(bottom=0)
        number_ticks(rate)
        rate.yaxis.get_major_locator().set_params(nbins=3)
        rate.set_ylabel("learning\nrate")
        rate.set_xlabel("training step")
        whole_ticks(rate, "x")
    return result.svg


def ritz_curves(history: Sequence[TrainingWindow], n_kept: int) -> str:
    """Draw the Ritz value of each trained function over the steps; those beyond ``n_kept`` are thin and grey.

    On a log axis, values below a ten-thousandth of the largest (rounding of a constant function) lie under the axis.
    """
    steps = [window.step for window in history]
    n_functions = max((len(window.ritz_values) for window in history), default=0)
    values = np.full((len(history), n_functions), np.nan)
    for row, window in enumerate(history):
        values[row, : len(window.ritz_values)] = window.ritz_values
    with drawing("Ritz value of each function by training step") as result:
        ax = result.figure.subplots()
        marker = "o" if len(history) < 3 else None
        for function in range(n_functions):
            kept = function < n_kept
            colour, width = (BLUE, 1.6) if kept else (FAINT, 0.9)
            ax.plot(steps, values[:, function], color=colour, linewidth=width, marker=marker)
        positive = values[values > 0]
        if positive.size and positive.max() > _LOG_SPAN * positive.min():
            # A constant function's value is rounding noise: it must not stretch the axis over empty decades.
            floor = max(float(positive.min()), float(positive.max()) * 1e-4)
            log_ticks(ax, floor, float(positive.max()), "Ritz value")
            ax.set_ylim(bottom=floor * 0.8)
        else:
            ax.set_ylabel("Ritz value")
            number_ticks(ax)
        ax.set_xlabel("training step")
        whole_ticks(ax, "x")
        lines = [Line2D([], [], color=BLUE, label="kept")]
        if n_functions > n_kept:
            lines.append(Line2D([], [], color=FAINT, linewidth=0.9, label="dropped"))
        _legend_above(ax, lines)
    return result.svg


def spectrum(facts: SpectrumFacts) -> str:
    """Draw the Ritz values in order, kept and dropped, above the relative gaps with the suggested one marked."""
    values = np.asarray(facts.ritz_values, dtype=float)
    order = np.arange(1, len(values) + 1)
    suggested = facts.suggested_n_clusters
    with drawing("Eigenvalue spectrum with the largest relative gap", height=4.2) as result:
        if facts.gaps:
            ax, below = result.figure.subplots(2, 1, sharex=True, height_ratios=(2.6, 1))
            places = np.arange(1, len(facts.gaps) + 1) + 0.5
            colours = [ORANGE if place - 0.5 == suggested else MUTED for place in places]
            below.bar(places, facts.gaps, width=0.5, color=colours)
            below.set_ylabel("relative\ngap")
            number_ticks(below)
            below.yaxis.get_major_locator().set_params(nbins=3)
        else:
            ax = below = result.figure.subplots()
        kept = order <= facts.n_kept
        ax.plot(order[kept], values[kept], "o", color=BLUE, markersize=6, clip_on=False, label="kept")
        ax.plot(order[~kept], values[~kept], "o", color=MUTED, fillstyle="none", markersize=6, label="dropped")
        if suggested is not None and 0 < suggested < len(values):
            for panel in {ax, below}:
                panel.axvspan(suggested + 0.15, suggested + 0.85, color=ORANGE, alpha=0.16, linewidth=0)
            _annotate_gap(ax, values, suggested)
        handles, _ = ax.get_legend_handles_labels()
        _legend_above(ax, [handle for handle in handles if len(handle.get_xdata())])
        ax.set_ylim(bottom=min(0.0, float(values.min(initial=0.0))), top=float(values.max(initial=0.0)) * 1.12 or 1.0)
        number_ticks(ax)
        ax.set_ylabel("eigenvalue")
        below.set_xlabel("function, by eigenvalue")
        whole_ticks(below, "x", 8)
        below.set_xlim(0.4, len(values) + 0.6)
    return result.svg


def function_errors(facts: CertificateFacts) -> str:
    """Draw the bound of each kept function's error, and what remains of it where near functions count as right."""
    order = np.arange(1, len(facts.sin2) + 1)
    with drawing("Bound of the error of each function", height=3.6) as result:
        ax = result.figure.subplots()
        ax.bar(order, facts.sin2, width=0.7, color=FAINT, label="against the exact functions")
        ax.bar(order, facts.near_sin2, width=0.7, color=BLUE, label="and those of near eigenvalues")
        handles, labels = ax.get_legend_handles_labels()
        ax.axhline(FUNCTION_LIMIT, color=INK, linewidth=1, linestyle=(0, (4, 3)))
        ax.legend(handles, labels, loc="lower left", bbox_to_anchor=(-0.01, 1.0), ncols=2, borderaxespad=0.2)
        ax.set_ylim(0, max(1.2 * FUNCTION_LIMIT, 1.1 * max(facts.sin2)))
        ax.set_ylabel("sin^2, at most")
        number_ticks(ax)
        ax.grid(axis="x", visible=False)
        ax.set_xlabel("function, by eigenvalue")
        whole_ticks(ax, "x", 20 if len(order) <= 20 else 10)
    return result.svg


def scatter(x: Sequence[float], y: Sequence[float], groups: Sequence[int] | Sequence[int | str], kind: str) -> str:
    """Draw sampled rows in two coordinates, coloured and named by group.

    Args:
        x: (S,) first coordinate.
        y: (S,) second coordinate.
        groups: (S,) cluster numbers or labels; each is named at its median unless they exceed ``MAX_NAMED_GROUPS``.
        kind: what a group is, ``cluster`` or ``label``.
    """
    points = np.column_stack([np.asarray(x, dtype=float), np.asarray(y, dtype=float)])
    names, members = _groups(groups)
    # Cluster numbers keep their own colour even if the sample misses some; labels are numbered in order.
    colour_of = [name if isinstance(name, int) and kind == "cluster" else rank for rank, name in enumerate(names)]
    colours = np.array([to_rgba(category_colour(index)) for index in colour_of]).reshape(-1, 4)
    with drawing(f"Sampled rows by {kind} in the first two coordinates", height=4.6) as result:
        ax = result.figure.subplots()
        size = float(np.clip(40_000 / max(len(points), 1), 4, 30))
        # Pixels, not paths: thousands of points as SVG elements would make the page slow to open.
        ax.scatter(points[:, 0], points[:, 1], s=size, c=colours[members], alpha=0.75, linewidths=0, rasterized=True)
        for group in range(len(names) if len(names) <= MAX_NAMED_GROUPS else 0):
            ax.annotate(
                printable(names[group], 14),
                np.nanmedian(points[members == group], axis=0),
                ha="center",
                va="center",
                fontsize=9.5,
                fontweight="bold",
                bbox={"boxstyle": "round,pad=0.2", "facecolor": PAPER, "edgecolor": colours[group], "alpha": 0.9},
                parse_math=False,
            )
        ax.set_xlabel("first non-constant coordinate")
        ax.set_ylabel("second non-constant coordinate")
        number_ticks(ax)
        ax.xaxis.set_major_formatter(ax.yaxis.get_major_formatter())
    return result.svg


def cluster_sizes(facts: ClusterFacts) -> str:
    """Draw rows per cluster: bars by cluster number, or the sorted curve beyond ``MAX_BARS`` clusters."""
    sizes = np.asarray(facts.sizes)
    with drawing("Rows in each cluster", height=3.6) as result:
        ax = result.figure.subplots()
        if len(sizes) <= MAX_BARS:
            few = len(sizes) <= len(CATEGORIES)
            colours = [category_colour(cluster) if few else BLUE for cluster in range(len(sizes))]
            ax.bar(np.arange(len(sizes)), sizes, width=0.7, color=colours)
            ax.grid(axis="x", visible=False)
            ax.set_xlabel("cluster")
            ax.set_xlim(-0.8, len(sizes) - 0.2)
        else:
            ax.plot(np.arange(1, len(sizes) + 1), np.sort(sizes)[::-1], color=BLUE, linewidth=1.8)
            ax.set_xlabel("cluster, from the largest to the smallest")
        if len(sizes) > MAX_BARS and sizes.min() > 0 and sizes.max() > _LOG_SPAN * sizes.min():
            log_ticks(ax, float(sizes.min()), float(sizes.max()), "rows")
        else:
            ax.set_ylabel("rows")
            ax.set_ylim(bottom=0)
            whole_ticks(ax, "y")
        if len(sizes) > 1:
            ax.axhline(sizes.mean(), color=INK, linewidth=1, linestyle=(0, (4, 3)))
            label = f"equal share: {count(sizes.mean())} rows"
            _legend_above(ax, [Line2D([], [], color=INK, linewidth=1, linestyle=(0, (4, 3)), label=label)])
        whole_ticks(ax, "x", 20 if len(sizes) <= 20 else 10)
    return result.svg


def degree_histogram(histogram: Histogram) -> str:
    """Draw how many rows have which degree; either axis is logarithmic where the bins or counts ask for it."""
    counts, edges = np.asarray(histogram.counts), np.asarray(histogram.edges, dtype=float)
    with drawing("Distribution of the degree", height=3.6) as result:
        ax = result.figure.subplots()
        if len(counts):
            filled = counts[counts > 0]
            tall = bool(filled.size) and filled.max() > 1000 * filled.min()
            ax.stairs(counts, edges, fill=True, color=BLUE, baseline=0.5 if tall else 0)
            if tall:
                log_ticks(ax, 0.5, float(filled.max()), "rows")
                ax.set_ylim(0.5, 1.5 * float(filled.max()))
            else:
                ax.set_ylabel("rows")
                whole_ticks(ax, "y")
            widths = np.diff(edges)
            if edges[0] > 0 and widths[-1] > _LOG_SPAN * widths[0]:
                ax.set_xscale("log")
                ax.xaxis.set_major_formatter(lambda value, _: number(value))
        ax.set_xlabel("degree of a row in the graph")
    return result.svg


def _groups(groups: Sequence[int] | Sequence[int | str]) -> tuple[list[int | str], np.ndarray]:
    """Return the distinct groups, numbers before words, and (S,) the place of each row's group among them."""
    names: list[int | str] = sorted(set(groups), key=lambda name: (isinstance(name, str), name))
    place = {name: index for index, name in enumerate(names)}
    return names, np.array([place[name] for name in groups], dtype=np.int64)


def _annotate_gap(ax: Axes, values: np.ndarray, suggested: int) -> None:
    """Write ``suggests n clusters`` into the emptier half of the plot, with an arrow to the gap."""
    right = suggested < 0.55 * len(values)
    ax.annotate(
        f"suggests {plural(suggested, 'cluster')}",
        (suggested + 0.5, float(values[suggested - 1] + values[suggested]) / 2),
        xytext=(0.97, 0.14) if right else (0.05, 0.86),
        textcoords="axes fraction",
        ha="right" if right else "left",
        va="center",
        fontweight="bold",
        color=ORANGE,
        arrowprops={"arrowstyle": "->", "color": ORANGE, "shrinkB": 3},
    )


def _legend_above(ax: Axes, handles: Sequence[Line2D]) -> None:
    """Put the legend over the axes, where it covers no data."""
    ax.legend(handles=list(handles), loc="lower left", bbox_to_anchor=(-0.01, 1.0), ncols=3, borderaxespad=0.2)

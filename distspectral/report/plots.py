"""One function per plot of the report; each returns an SVG element as text.

Shape letters: E trained functions.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from distspectral.plotting import LONGEST_NAME
from distspectral.report.data import CertificateFacts, Histogram, SpectrumFacts, TrainingWindow
from distspectral.report.drawing import (
    BLUE,
    FAINT,
    INK,
    MUTED,
    drawing,
    log_ticks,
    number_ticks,
    whole_ticks,
)
from distspectral.report.formats import duration, number
from distspectral.spectral.certificate import FUNCTION_LIMIT
from distspectral.text import printable

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
        ax.set_yticks(places, [printable(stage, LONGEST_NAME) for stage in seconds], color=INK, parse_math=False)
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
    """Draw the Ritz values in order, kept and dropped, above the relative gaps between them."""
    values = np.asarray(facts.ritz_values, dtype=float)
    order = np.arange(1, len(values) + 1)
    with drawing("Eigenvalue spectrum with relative gaps", height=4.2) as result:
        if facts.gaps:
            ax, below = result.figure.subplots(2, 1, sharex=True, height_ratios=(2.6, 1))
            places = np.arange(1, len(facts.gaps) + 1) + 0.5
            below.bar(places, facts.gaps, width=0.5, color=MUTED)
            below.set_ylabel("relative\ngap")
            number_ticks(below)
            below.yaxis.get_major_locator().set_params(nbins=3)
        else:
            ax = below = result.figure.subplots()
        kept = order <= facts.n_kept
        ax.plot(order[kept], values[kept], "o", color=BLUE, markersize=6, clip_on=False, label="kept")
        ax.plot(order[~kept], values[~kept], "o", color=MUTED, fillstyle="none", markersize=6, label="dropped")
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


def _legend_above(ax: Axes, handles: Sequence[Line2D]) -> None:
    """Put the legend over the axes, where it covers no data."""
    ax.legend(handles=list(handles), loc="lower left", bbox_to_anchor=(-0.01, 1.0), ncols=3, borderaxespad=0.2)

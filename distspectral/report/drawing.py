"""How every plot looks and how a matplotlib figure becomes inline SVG that follows the page's colours.

Only the object API is used: no pyplot, no global figure. The settings live in ``rc_context`` while a plot is drawn.
"""

from __future__ import annotations

import html
import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

from distspectral.report.formats import count, number

INK, MUTED, GRID, PAPER = "#1b2733", "#5a6773", "#dfe5eb", "#fefefe"
BLUE, FAINT = "#0072b2", "#9aa5b0"
_PAGE_COLOURS = {INK: "var(--ink)", MUTED: "var(--muted)", GRID: "var(--line)", PAPER: "var(--card)"}
_WIDTH_INCHES = 6.0
_STYLE = {
    "svg.fonttype": "none",
    "font.family": ["DejaVu Sans"],
    "font.size": 10.0,
    "axes.labelsize": 10.0,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "figure.facecolor": "none",
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.labelsize": 9.5,
    "ytick.labelsize": 9.5,
}


@dataclass
class Drawing:
    """A figure being drawn; ``svg`` is filled when the ``drawing`` block ends."""

    figure: Figure
    svg: str = ""


@contextmanager
def drawing(description: str, height: float = 3.6, dpi: int = 160) -> Iterator[Drawing]:
    """Yield a figure in the page's style and turn it into SVG at the end of the block.

    The same calls give the same bytes: ids come from the description, no date is written.

    Args:
        description: what a screen reader says of the figure.
        height: in inches; the width is the same for all figures, so that text has one size on the page.
        dpi: of what is drawn as pixels.
    """
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": description}):
        result = Drawing(Figure(figsize=(_WIDTH_INCHES, height), layout="constrained"))
        yield result
        buffer = io.StringIO()
        metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        with warnings.catch_warnings():  # a label's script may be missing here; the browser has its own fonts
            warnings.filterwarnings("ignore", message=r"Glyph .* missing from font")
            result.figure.savefig(buffer, format="svg", metadata=metadata, dpi=dpi)
    result.svg = _inline(buffer.getvalue(), description)


def _inline(document: str, description: str) -> str:
    """Return the ``<svg>`` element alone, sized by its container, its neutral colours taken from the page."""
    svg = document[document.index("<svg") :].strip()
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL)  # a rule for everything on the page; said below
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)  # figure_1, axes_1, ...: the same in every figure of the page
    head, body = svg.split(">", 1)
    head = re.sub(r'\s(width|height)="[^"]*"', "", head)
    for colour, variable in _PAGE_COLOURS.items():
        body = body.replace(colour, variable)
    head += ' stroke-linejoin="round" stroke-linecap="butt"'
    return f'{head} role="img" aria-label="{html.escape(description)}">{body}'


def alone(svg: str) -> str:
    """Return a figure of the page as a file that stands alone: of a size and with colours and fonts of its own."""
    for colour, variable in _PAGE_COLOURS.items():
        svg = svg.replace(variable, colour)
    width, height = re.findall(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg)[0]
    svg = svg.replace("'DejaVu Sans'", "'DejaVu Sans', Helvetica, Arial, sans-serif")
    return svg.replace("<svg ", f'<svg width="{width}pt" height="{height}pt" style="background: white" ', 1)


def whole_ticks(ax: Axes, axis: str, n_ticks: int = 6) -> None:
    """Label an axis (``x`` or ``y``) of counts at whole numbers with thousands separators."""
    target = ax.xaxis if axis == "x" else ax.yaxis
    target.set_major_locator(MaxNLocator(n_ticks, integer=True, min_n_ticks=1))
    target.set_major_formatter(FuncFormatter(lambda value, _: count(value)))


def number_ticks(ax: Axes) -> None:
    """Label the y axis of measurements with at most six plain numbers."""
    ax.yaxis.set_major_locator(MaxNLocator(6))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))


def log_ticks(ax: Axes, low: float, high: float, label: str) -> None:
    """Make the y axis logarithmic over ``low`` to ``high`` with plain numbers; the label says so."""
    ax.set_yscale("log")
    ax.yaxis.set_major_locator(LogLocator(subs=(1.0,) if high / low > 300 else (1.0, 2.0, 5.0)))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
    ax.yaxis.minorticks_off()
    ax.set_ylabel(f"{label}, log scale")

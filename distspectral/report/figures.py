"""The pictures of a run as files for papers: vector graphics whose text stays text, and no title.

Shape letters: E trained functions, M leaves, C clusters, S sampled rows.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from matplotlib.ticker import FuncFormatter

from distspectral.plotting import CATEGORIES, draw_rows
from distspectral.report import plots
from distspectral.report.confusion import MAX_NAMES, confusion_matrix
from distspectral.report.confusions import in_order
from distspectral.report.data import ReportData, RowSample, TreeFacts
from distspectral.report.drawing import INK, MUTED, alone, drawing
from distspectral.report.formats import count, number
from distspectral.report.rows import Square
from distspectral.storage.artifact.directory import Artifact

FOLDER = "figures"
MOST_CLUSTERS = 120
"""Of a tree that is drawn; more lines would fill more than a page."""
DPI = 300
LEAST_AFFINITY = 1e-6
"""Relative to chance, below which clusters are as good as apart."""


def write_figures(root: Artifact, data: ReportData) -> list[str]:
    """Write what a run has pictures of into ``figures`` below its root, each whole or not at all; return their places.

    They are ``map.svg`` and ``map.png``, ``tree.svg``, ``spectrum.svg``, ``convergence.svg`` and ``confusion.svg``.
    """
    made: dict[str, str | bytes] = {}
    if data.rows.n_rows:
        made["map.svg"], made["map.png"] = map_figure(data.rows)
    if data.tree is not None and 1 < data.clusters.n_clusters <= MOST_CLUSTERS:
        made["tree.svg"] = tree_figure(data.tree, data.clusters.sizes)
    if data.spectrum.ritz_values:
        made["spectrum.svg"] = alone(plots.spectrum(data.spectrum))
    if any(window.ritz_values for window in data.training.history):
        made["convergence.svg"] = alone(plots.ritz_curves(data.training.history, data.spectrum.n_kept))
    if data.confusion is not None and max(len(data.confusion.classes), data.clusters.n_clusters) <= MAX_NAMES:
        counts, order = in_order(data.confusion)
        made["confusion.svg"] = confusion_matrix(counts, data.confusion.classes, order)
    folder = root.child(FOLDER)
    folder.filesystem.create_dir(folder.path, recursive=True)
    for name, content in made.items():
        folder.write_bytes(name, content.encode() if isinstance(content, str) else content)
    return [f"{folder.uri}/{name}" for name in made]


def map_figure(sample: RowSample) -> tuple[str, bytes]:
    """Draw the rows coloured and numbered by cluster, where the page has them; return an SVG and a PNG of it.

    Rows are pixels in either, for tens of thousands of points as vectors would be slow to open.
    """
    x, y = np.asarray(sample.x), np.asarray(sample.y)
    places = Square(x, y, sample.place).places(x, y)
    content = io.BytesIO()
    with drawing("Map of the rows, by cluster", height=6.0, dpi=DPI) as result:
        ax = result.figure.subplots()
        draw_rows(places[:, 0], places[:, 1], sample.cluster, ax, axes_named=("", ""))
        ax.set(xticks=[], yticks=[], xlim=(0, 1), ylim=(0, 1), aspect="equal")
        if sample.place == "map":
            ax.set_axis_off()
        else:
            ax.set(xlabel="rank in the second function", ylabel="rank in the third function")
        result.figure.savefig(content, format="png", dpi=DPI, facecolor="white")
    return alone(result.svg), content.getvalue()


def tree_figure(tree: TreeFacts, sizes: list[int]) -> str:
    """Draw how the run's clusters join, by their affinity relative to chance, and return an SVG.

    A merger stands at the least affinity of those below it, for the tree never grows weaker downwards.

    Args:
        tree: its top, of M leaves.
        sizes: (C,) rows by cluster.
    """
    n_leaves, n_clusters = len(tree.clusters), len(sizes)
    children = np.reshape(tree.children, (-1, 2))
    first = 2 * n_leaves - n_clusters  # merger of clusters
    weakest = np.minimum.accumulate(np.clip(tree.affinity, LEAST_AFFINITY, None))
    right = max(1.0, *weakest[first - n_leaves :]) * 1.3
    numbers: list[int] = []

    def draw(node: int, line: Callable[..., object]) -> tuple[float, float]:
        """Draw what is below a node and return where it stands."""
        if node < first:
            numbers.append(_cluster(tree, children, node))
            return right, len(numbers) - 1.0
        ends = [draw(int(child), line) for child in children[node - n_leaves]]
        here = float(weakest[node - n_leaves])
        line([ends[0][0], here, here, ends[1][0]], [ends[0][1], ends[0][1], ends[1][1], ends[1][1]])
        return here, (ends[0][1] + ends[1][1]) / 2

    with drawing("Tree of the clusters", height=0.9 + 0.24 * n_clusters) as result:
        ax = result.figure.subplots()
        draw(2 * n_leaves - 2, lambda x, y: ax.plot(x, y, color=MUTED, linewidth=1.2, solid_joinstyle="miter"))
        colours = [CATEGORIES[one % len(CATEGORIES)] for one in numbers]
        ax.scatter([right] * n_clusters, range(n_clusters), s=26, c=colours, zorder=3, clip_on=False)
        ax.set_xscale("log")
        ax.set_xlim(min(0.5, float(weakest[-1])) * 0.8, right)
        ax.set_ylim(n_clusters - 0.4, -0.6)
        ax.yaxis.tick_right()
        labels = [f"{one}  ({count(sizes[one])})" for one in numbers]
        ax.set_yticks(range(n_clusters), labels, color=INK)
        ax.tick_params(axis="y", length=0, pad=6)
        ax.grid(axis="y", visible=False)
        ax.spines["left"].set_visible(False)
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
        ax.minorticks_off()
        ax.set_xlabel("affinity at which clusters join, relative to chance")
    return alone(result.svg)


def _cluster(tree: TreeFacts, children: np.ndarray[tuple[int, ...], np.dtype[np.int64]], node: int) -> int:
    """Return the run's cluster that a node below its mergers belongs to."""
    while node >= len(tree.clusters):
        node = int(children[node - len(tree.clusters), 0])
    return tree.clusters[node]

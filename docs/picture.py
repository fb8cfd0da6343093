"""Pictures of README and docs: ``python docs/picture.py`` writes docs/assets/moons.png and map.png (a minute)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from sklearn.datasets import load_digits

from distspectral import SpectralNet
from distspectral.datasets import two_moons
from distspectral.plotting import CATEGORIES
from distspectral.report.drawing import BLUE, INK, MUTED, PAPER

ASSETS = Path(__file__).parent / "assets"
ORANGE = CATEGORIES[3]
COLOURS = np.array([BLUE, ORANGE])


def main() -> None:
    """Draw all of them."""
    draw_moons()
    draw_map()


def draw_map() -> None:
    """Draw the map of scikit-learn's digits, coloured by cluster."""
    X, _ = load_digits(return_X_y=True)
    model = SpectralNet(n_clusters=10, random_state=0).fit(X)
    figure = Figure(figsize=(5.2, 4.4), layout="constrained", facecolor=PAPER)
    ax = figure.subplots()
    ax.scatter(*model.map().T, s=4, c=model.labels_, cmap="tab10", linewidths=0)
    ax.set(xticks=[], yticks=[], aspect="equal")
    ax.spines[:].set_color(MUTED)
    figure.savefig(ASSETS / "map.png", dpi=120)


def draw_moons() -> None:
    """Fit two moons and draw the rows, the eigenfunction between them and the clusters of the whole plane."""
    X, _ = two_moons(2000, noise=0.06, seed=0)
    model = SpectralNet(n_clusters=2, random_state=0).fit(X)
    x, y = np.meshgrid(np.linspace(-1.6, 2.6, 420), np.linspace(-1.1, 1.6, 270))
    plane = np.column_stack([x.ravel(), y.ravel()])
    function = model.transform(plane)[:, 0].reshape(x.shape)
    regions = model.predict(plane).reshape(x.shape)

    figure = Figure(figsize=(9.6, 2.3), layout="constrained", facecolor=PAPER)
    axes = figure.subplots(1, 3)
    axes[0].scatter(*X.T, s=3, c=MUTED, linewidths=0)
    limit = np.abs(function).max()
    axes[1].contourf(x, y, function, 21, cmap="RdBu", vmin=-limit, vmax=limit)
    axes[1].contour(x, y, function, [0.0], colors=INK, linewidths=1)
    axes[2].contourf(x, y, regions, [-0.5, 0.5, 1.5], colors=COLOURS, alpha=0.18)
    axes[2].scatter(*X.T, s=3, c=COLOURS[model.labels_], linewidths=0)
    titles = ("2,000 rows, no labels", "the learned eigenfunction", "clusters, of new rows too")
    for ax, title in zip(axes, titles, strict=True):
        ax.set(xlim=(x.min(), x.max()), ylim=(y.min(), y.max()), xticks=[], yticks=[], aspect="equal")
        ax.set_title(title, fontsize=10, color=INK)
        ax.spines[:].set_color(MUTED)
    figure.savefig(ASSETS / "moons.png", dpi=120)


if __name__ == "__main__":
    main()

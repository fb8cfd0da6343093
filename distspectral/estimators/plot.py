"""The picture of a fitted estimator."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from distspectral.errors import ConfigError
from distspectral.plotting import draw_embedding, draw_rows


class PlotMixin:
    """Gives an estimator with ``embedding_`` and ``labels_`` the method ``plot``."""

    def plot(self: Any, y: Any = None, ax: Any = None) -> Any:
        """Draw the training rows and return matplotlib's axes.

        Rows lie as on the map, once ``map()`` has drawn one. Before, they lie by the first two eigenfunctions that are
        not constant, which part a few of many clusters from all others.

        Args:
            y: (N,) labels or other groups to colour by; None: the clusters.
            ax: axes to draw into; None makes a figure.

        Raises:
            ConfigError: a ValueError; not as many labels as rows.
        """
        check_is_fitted(self)
        groups, places = self.labels_ if y is None else np.asarray(y), vars(self).get("map_")
        if len(groups) != len(self.labels_):
            raise ConfigError(f"y: has {len(groups)} labels, but {len(self.labels_)} rows were fitted; give one each")
        if places is None:
            return draw_embedding(self.embedding_, groups, ax)
        return draw_rows(places[:, 0], places[:, 1], groups, ax, axes_named=("map, x", "map, y"))

"""The picture of a fitted estimator."""

from __future__ import annotations

from typing import Any

from sklearn.utils.validation import check_is_fitted

from distspectral.plotting import draw_embedding


class PlotMixin:
    """Gives an estimator with ``embedding_`` and ``labels_`` the method ``plot``."""

    def plot(self: Any, y: Any = None, ax: Any = None) -> Any:
        """Draw the training rows by the first two eigenfunctions that are not constant, and return matplotlib's axes.

        Args:
            y: (N,) labels or other groups to colour by; None: the clusters.
            ax: axes to draw into; None makes a figure.
        """
        check_is_fitted(self)
        return draw_embedding(self.embedding_, self.labels_ if y is None else y, ax)

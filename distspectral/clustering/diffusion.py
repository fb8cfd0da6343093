"""Diffusion-map coordinates: each function scaled by how slowly it decays.

Shape letters: P components (the constant one included), C clusters.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray


def diffusion_time(ritz_values: NDArray[np.float64], n_clusters: int) -> float:
    """Return the time at which the first function beyond the clusters has decayed to a half.

    Graphs differ in how fast they mix, so no one time suits all: MNIST's codes want 50, tf-idf text 10. In units of the
    spectrum they want the same. Values of zero, those of components, are taken for 1e-6.

    Args:
        ritz_values: (P,) ascending, the constant function's zero included.
        n_clusters: C; where all P functions are fewer, the last one counts.
    """
    slowest = ritz_values[min(n_clusters, len(ritz_values) - 1)]
    return float(np.log(2) / -np.log1p(-np.clip(slowest, 1e-6, 1 - 1e-6)))


def diffusion_scale(
    ritz_values: NDArray[np.float64], time: float | Literal["auto"], n_clusters: int
) -> NDArray[np.float32]:
    """Return (1 - lambda)^time for each Ritz value (P,): diffusion-map coordinates.

    ``auto`` is the time of :func:`diffusion_time` for ``n_clusters``.
    Reference: Coifman and Lafon, Diffusion maps, 2006.
    """
    if time == "auto":
        time = diffusion_time(ritz_values, n_clusters)
    scale: NDArray[np.float32] = (np.clip(1.0 - ritz_values, 1e-6, 1.0) ** time).astype(np.float32)
    return scale

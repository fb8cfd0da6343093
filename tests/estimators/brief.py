"""Rows and parameters with which an estimator is fitted in a moment."""

from __future__ import annotations

from typing import Any

import numpy as np

X, Y = np.random.default_rng(0).normal(size=(60, 4)), np.arange(60) % 5
SPECTRAL: dict[str, Any] = {
    "n_clusters": 3,
    "representation": "input",
    "affinity_space": "euclidean",
    "hidden": (8,),
    "batch_size": 64,
    "max_steps": 2,
    "random_state": 0,
}
METRIC: dict[str, Any] = {"hidden": (8,), "batch_size": 40, "max_steps": 2, "random_state": 0}

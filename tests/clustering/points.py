"""Points in clusters, and in parts of a graph."""

from __future__ import annotations

import numpy as np


def blobs():
    rng = np.random.default_rng(0)
    centres = np.array([[0, 0], [10, 0], [0, 10]], np.float32)
    return (centres[np.arange(90) % 3] + rng.normal(scale=0.3, size=(90, 2))).astype(np.float32), centres


def uneven_parts(sizes, spread):
    """Rows of length 1 around orthogonal axes, one axis per part; the first part is spread over further axes."""
    rng = np.random.default_rng(0)
    parts = np.repeat(np.arange(len(sizes)), sizes)
    points = np.hstack([np.eye(len(sizes))[parts], np.zeros((len(parts), 3))])
    points[parts == 0, -3:] = rng.normal(scale=spread, size=(sizes[0], 3))
    return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32), parts

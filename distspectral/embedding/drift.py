"""Have new rows left the training distribution: their Dirichlet energy and distance to the nearest training rows.

Eigenfunctions change little between neighbours; that is what they were trained for. Where rows lie off the training
data, their neighbours there are far, and the functions between them and their neighbours were never smoothed.

Shape letters: Q sampled rows, R reference rows of the training data, D features, K neighbours.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from distspectral.embedding.forward import in_blocks
from distspectral.graph.search.exact import squared_distances
from distspectral.graph.search.faiss_search import knn
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.rows.vectors import ArrayVectors, FleetingVectors

if TYPE_CHECKING:
    from distspectral.models.embedder import Embedder

logger = logging.getLogger(__name__)

REFERENCE_ROWS, REFERENCE_BYTES = 100_000, 256 << 20
"""Training rows that neighbours are sought among, fewer where they would take more memory than this."""
N_NEIGHBORS = 10
SAME = 1e-10
"""Squared distance, relative to the squared length of a row, below which only rounding tells two rows apart."""
FEWEST_ROWS = 50
"""With fewer, whether they have drifted is unknown."""
OWN_ROWS = 2_000
"""Training rows whose means new rows are compared with, at least."""
LIMIT = 1.5
"""Times the training rows' own mean. MNIST, raw pixels, 60,000 digits trained on: energy 1.17 for the other 10,000, .95
with noise of .1 on every pixel, which changes nothing; 5.8 moved by two pixels, 8.3 at half the contrast, 27 inverted.
Distances alone: 1.00, 1.11; 1.39, .95, 4.8.

Medians would be steadier and are no measure: a trained network has next to no energy inside clusters at rows it was
taught. Of scikit-learn's digits, 1,200 trained on, the other 597 have 22 times the median energy and 1.01 times the
mean."""
ERRORS = 4.0
"""Standard errors by which the means differ at least: few rows between clusters make up most of the energy. Of random
training rows of digits, blobs and two moons, 50 to half of all, up to 28% of 1,000 draws are above ``LIMIT``, none of
20,000 is so by 4 errors, and one by 3."""


NAMES = ("energy", "distance")
TINY = float(np.finfo(np.float32).tiny)


def measure_drift(rows: NDArray[np.float32], training: Artifact, embedder: Embedder) -> dict[str, Any]:
    """Return what new rows and training rows have between themselves and their neighbours, and warn if that differs.

    Both are compared with the same random training rows, in the space that the graph was built in where the model can
    reach it. A row equal to the one at hand is no neighbour, so rows trained on count like others.

    Args:
        rows: (Q, D) sample of the new rows.
        training: finished ``vectors`` artifact of the training data.
        embedder: the trained model.

    Returns:
        ``n_rows``; ``energy``, mean of (f_i - f_j)^2 / 2 over rows, neighbours and functions, where unrelated rows have
        about 1; ``distance``, the mean to the neighbours; for either the training rows' own (``training_...``), the
        ratio (``..._ratio``) and by how many standard errors the two differ (``..._errors``); ``drifted``, whether a
        ratio is above ``LIMIT`` by more than chance, None of fewer than ``FEWEST_ROWS`` rows.
    """
    vectors = FleetingVectors(training)
    dtype = training.manifest().properties["dtype"]  # as training rows were stored, lest a row differ from itself
    rng = np.random.default_rng(0)
    n_reference = min(vectors.n_rows, REFERENCE_ROWS, max(1, REFERENCE_BYTES // (4 * vectors.dim)))
    reference = _Points(vectors.gather(_choice(rng, vectors.n_rows, n_reference)), embedder)
    own = _Points(vectors.gather(_choice(rng, vectors.n_rows, min(max(len(rows), OWN_ROWS), vectors.n_rows))), embedder)
    new = _Points(rows.astype(dtype).astype(np.float32), embedder)
    found: dict[str, Any] = {"n_rows": len(rows)}
    for name, ours, theirs in zip(NAMES, new.roughness(reference), own.roughness(reference), strict=True):
        found |= _compared(name, ours, theirs)
    exceeds = any((found[f"{name}_ratio"] or 0) > LIMIT and found[f"{name}_errors"] > ERRORS for name in NAMES)
    found["drifted"] = exceeds if len(rows) >= FEWEST_ROWS else None
    if found["drifted"]:
        logger.warning(
            "the new rows have left the training distribution: to their neighbours in the training data they have "
            "%.1f times the distance and %.1f times the Dirichlet energy of training rows (%d rows sampled); their "
            "coordinates and clusters are extrapolated, train on them too",
            found["distance_ratio"] or np.nan,
            found["energy_ratio"] or np.nan,
            len(rows),
        )
    return found


def _choice(rng: np.random.Generator, n: int, n_chosen: int) -> NDArray[np.int64]:
    return np.sort(rng.choice(n, n_chosen, replace=False)).astype(np.int64)


def _compared(name: str, new: NDArray[np.float64], own: NDArray[np.float64]) -> dict[str, float | None]:
    """Return the facts of one measure from its values at new rows (n,) and at training rows (m,)."""
    value, expected = (float(one.mean()) if len(one) else 0.0 for one in (new, own))
    error = np.sqrt(sum(float(one.var()) / len(one) for one in (new, own) if len(one)))
    return {
        name: value,
        f"training_{name}": expected,
        f"{name}_ratio": value / expected if expected else None,
        f"{name}_errors": (value - expected) / max(float(error), TINY),
    }


class _Points:
    """Rows as the graph sees them, and the functions there.

    Args:
        rows: (n, D).
        embedder: the trained model.
    """

    def __init__(self, rows: NDArray[np.float32], embedder: Embedder) -> None:
        network = embedder.network
        self.functions = in_blocks(network, ArrayVectors(rows))
        self.places = rows if network.encoder is None else in_blocks(network.encoder, ArrayVectors(rows))

    def roughness(self, reference: _Points) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return mean energy and mean distance of each row and its K neighbours in the reference, where it has any."""
        k = min(N_NEIGHBORS + 1, len(reference.places))
        _, ids = knn(self.places, reference.places, k)
        squared = squared_distances(self.places, reference.places, ids)
        differs = squared > SAME * np.square(reference.places).sum(1).mean()
        counts = differs & (differs.cumsum(1) <= N_NEIGHBORS)
        counts = counts[has := counts.any(1)]
        energies = np.square(self.functions[has][:, None] - reference.functions[ids[has]]).mean(2) / 2
        n_counted = counts.sum(1)
        energy, distance = (
            (values * counts).sum(1, dtype=np.float64) / n_counted for values in (energies, np.sqrt(squared[has]))
        )
        return energy, distance

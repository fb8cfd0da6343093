"""Three ways to the rotation of trained functions: by all edges, by those of sampled rows, by polished functions.

Shape letters: N rows, E functions trained, P components kept.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from distspectral.calibration.edge_sums import EdgeSums, edge_sums
from distspectral.calibration.residuals import ResidualSample
from distspectral.calibration.sampled_sums import ritz_errors, sampled_sums
from distspectral.embedding.few_rows import GatheredGraph
from distspectral.embedding.loading import Loader
from distspectral.graph.certified import aligned_functions, certified
from distspectral.graph.store import MappedGraph
from distspectral.mapping import Mapper, in_order
from distspectral.models.networks import SpectralNetwork
from distspectral.spectral.certificate import Certificate
from distspectral.spectral.polish import can_polish
from distspectral.spectral.rayleigh import Laplacian
from distspectral.spectral.subspace import Filters
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.rows.vectors import MappedVectors
from distspectral.training.spectral import SpectralSettings

CALIBRATING, CERTIFYING = "calibrating", "certifying"

TASK_ROWS = 1 << 16
"""Rows of the graph in one task at least, some seconds of one core."""

MAX_TASKS = 1 << 10
"""Beyond them tasks grow: each opens all shards, for neighbours lie anywhere."""


def rows_per_task(n_rows: int) -> int:
    """Return the rows of the graph whose edges one task sums."""
    return max(TASK_ROWS, -(-n_rows // MAX_TASKS))


class Rotation(NamedTuple):
    """What calibration came to.

    Attributes:
        rotation: (E, P) of trained functions to those that the network is to emit.
        ritz_values: all, ascending.
        certificate: of the P functions.
        sampled: facts of a sample, where not all edges were summed.
    """

    rotation: NDArray[np.float64]
    ritz_values: NDArray[np.float64]
    certificate: Certificate
    sampled: Mapping[str, Any] = {}


def by_edges(features: Artifact, graph: Artifact, settings: SpectralSettings, mapper: Mapper) -> Rotation:
    """Return Ritz functions by the sums over all edges."""
    manifest, laplacian = features.manifest(), settings.spectral.laplacian
    n_rows, n_functions = manifest.n_rows, manifest.properties["dim"]
    step = rows_per_task(n_rows)
    ranges = [(start, min(start + step, n_rows)) for start in range(0, n_rows, step)]
    polishes = can_polish(n_rows, n_functions, graph.manifest().properties["k"])
    sample = None if polishes else ResidualSample.drawn(n_rows, n_functions, settings.seed)
    task = functools.partial(_mapped_sums, features, graph, laplacian, None if sample is None else sample.rows)
    sums = EdgeSums.none(n_functions)
    for more, part in in_order(mapper, task, ranges, CALIBRATING):
        sums += more
        if sample is not None:
            sample.merge(part)
    rotation, values = sums.ritz_functions(laplacian)
    rotation = rotation[:, : settings.n_components]
    if sample is not None:
        return Rotation(rotation, values, sample.certificate(sums, settings))
    judge = functools.partial(_mapped_certificate, features, graph, laplacian)
    (certificate,) = mapper(judge, [rotation.shape[1]], CERTIFYING)
    return Rotation(rotation, values, certificate)


def by_sample(
    vectors: Sequence[Artifact],
    loader: Loader[SpectralNetwork],
    graph: Artifact,
    scratch: Artifact,
    n_functions: int,
    settings: SpectralSettings,
    mapper: Mapper,
) -> Rotation:
    """Return Ritz functions by the edges of sampled rows."""
    laplacian = settings.spectral.laplacian
    found = sampled_sums(vectors, loader, GatheredGraph(graph, mapper), scratch, n_functions, laplacian, mapper)
    rotation, values = found.sums.ritz_functions(laplacian)
    errors = ritz_errors(found.blocks, rotation, values, laplacian)
    certificate = found.residuals.certificate(found.sums, settings)
    sampled = {"sampled_rows": found.n_rows, "ritz_errors": errors.tolist()}
    return Rotation(rotation[:, : settings.n_components], values, certificate, sampled)


def _mapped_sums(
    features: Artifact,
    graph: Artifact,
    laplacian: Laplacian,
    sampled: NDArray[np.int64] | None,
    rows: tuple[int, int],
) -> tuple[EdgeSums, Any]:
    """Return the range's sums and its part of a sample of rows; one task."""
    functions = MappedVectors(features)
    sample = None if sampled is None else ResidualSample(sampled, functions.dim)
    sums = edge_sums(functions, MappedGraph(graph), *rows, laplacian, None if sample is None else sample.add)
    return sums, None if sample is None else sample.part()


def _mapped_certificate(features: Artifact, graph: Artifact, laplacian: Laplacian, n_kept: int) -> Certificate:
    """Return the certificate of the lowest P functions; one task, of the whole graph."""
    functions = MappedVectors(features)
    return certified(functions.block(0, functions.n_rows), MappedGraph(graph), n_kept, laplacian)


def by_polish(features: Artifact, graph: Artifact, polished: Artifact, laplacian: Laplacian, n_kept: int) -> Rotation:
    """Return taught functions turned to the polished ones; one task, of the whole graph."""
    functions = MappedVectors(features)
    n_rows = functions.n_rows
    mass, exact = np.split(MappedVectors(polished).block(0, n_rows), [1], axis=1)
    facts = polished.manifest().properties
    filters, values = Filters(**facts["filters"]), np.asarray(facts["eigenvalues"])
    n_carried, trained = min(n_kept, len(values)), functions.block(0, n_rows)
    rotation, certificate = aligned_functions(
        trained, mass[:, 0], exact, filters, MappedGraph(graph), n_carried, laplacian
    )
    return Rotation(rotation, values, certificate)

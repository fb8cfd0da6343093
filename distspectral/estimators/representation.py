"""What neighbours are searched in, whose distances weigh the edges and what the network sees, for rows in memory.

The stages do the same over artifacts: ``autoencoder``, ``codes``, ``represent``, ``graph``, ``siamese``, ``features``
and ``reweight`` of :func:`distspectral.stages.plan.spectral_chain`.
Shape letters: N rows, K neighbours.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from distspectral.embedding.forward import in_blocks
from distspectral.graph.build import knn_graph
from distspectral.graph.config import AffinityConfig, AffinitySpace, GraphConfig
from distspectral.graph.store import ArrayGraph
from distspectral.models.networks import Perceptron
from distspectral.stages.encode import refuse_collapse
from distspectral.stages.learned import explained_variance, prefers_codes
from distspectral.stages.reweight import median_squared_distance, reweighted_rows
from distspectral.storage.rows.joined import JoinedVectors
from distspectral.storage.rows.vectors import ArrayVectors, Vectors
from distspectral.training.autoencoder import AutoencoderSettings
from distspectral.training.loop import TrainingObserver
from distspectral.training.siamese import SiameseSettings


@dataclasses.dataclass(frozen=True)
class RepresentationSettings:
    """All that decides a representation besides the rows."""

    representation: Literal["input", "code", "auto"]
    space: AffinitySpace
    autoencoder: AutoencoderSettings
    siamese: SiameseSettings
    graph: GraphConfig
    affinity: AffinityConfig


@dataclasses.dataclass(frozen=True)
class Representation:
    """A graph, and rows as a network on it should see them.

    Attributes:
        seen: (N, D') what the network is trained on.
        graph: (N, K).
        facts: of the graph, and ``explained_variance`` of codes if there were any.
        encoders: what an embedding needs before the trained network: arguments of
            :class:`distspectral.models.encoded.EncodedNetwork`.
    """

    seen: Vectors
    graph: ArrayGraph
    facts: dict[str, Any]
    encoders: dict[str, Any]


def represent_rows(
    rows: Vectors, settings: RepresentationSettings, observer: Callable[[str], TrainingObserver]
) -> Representation:
    """Return the representation of rows in memory.

    Args:
        rows: (N, D).
        settings: which, and how it is learned.
        observer: returns the one that hears of a training, by the name of what is trained.

    Raises:
        CollapsedError: an encoder maps all rows to one point.
        ConfigError, TooFewRowsError, ConstantDataError: see :func:`distspectral.graph.build.knn_graph`.
    """
    encoders: dict[str, Any] = {}
    represented, explained = rows, {}
    too_narrow = settings.representation == "auto" and rows.dim <= settings.autoencoder.train.n_components
    if settings.representation != "input" and not too_narrow:
        autoencoder = settings.autoencoder.trainer(rows)
        autoencoder.fit(observer("autoencoder"))
        model = autoencoder.model.cpu()
        explained = {"explained_variance": explained_variance(model.encoder, model.decoder, rows)}
        if settings.representation == "code" or prefers_codes(explained["explained_variance"]):
            represented, encoders = _encoded(model.encoder, rows), {"encoder": model.encoder}
    graph, facts = knn_graph(represented, settings.graph, settings.affinity)
    facts |= explained
    inputs, seen = ["code" if encoders else "vector"], [represented]
    if settings.space == "siamese":
        siamese = settings.siamese.trainer(represented, graph)
        siamese.fit(observer("siamese"))
        encoders["siamese"] = siamese.model.cpu()
        features = _encoded(encoders["siamese"], represented)
        inputs, seen = [*inputs, "siamese"], [*seen, features]
        if settings.siamese.train.use == "reweight":
            graph = reweighted(graph, features)
        else:
            graph, facts = knn_graph(features, settings.graph, settings.affinity)
            facts |= explained
    joined = seen[0] if len(seen) == 1 else JoinedVectors(seen)
    return Representation(joined, graph, facts, encoders | {"inputs": tuple(inputs)})


def reweighted(graph: ArrayGraph, features: Vectors) -> ArrayGraph:
    """Return the graph with the same edges, weighed by distances between ``features`` (N, E)."""
    return ArrayGraph(*reweighted_rows(graph, features, 0, graph.n_rows, median_squared_distance(graph, features)))


def _encoded(network: Perceptron, rows: Vectors) -> ArrayVectors:
    outputs = ArrayVectors(in_blocks(network, rows))
    refuse_collapse(outputs.mean, float(np.square(outputs.scale)), outputs.n_rows, "in memory")
    return outputs

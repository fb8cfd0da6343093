"""What neighbours are searched in, whose distances weigh the edges and what the network sees, for rows in memory.

The recipe decides; the stages do the same over artifacts. Shape letters: N rows, K neighbours.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from distspectral.clustering.fragmentation import fragmentation
from distspectral.embedding.encode import refuse_collapse
from distspectral.embedding.forward import in_blocks
from distspectral.embedding.pca import principal_components
from distspectral.estimators.trainings import Trainings
from distspectral.graph.knn import knn_graph
from distspectral.graph.search.lists import Neighbors
from distspectral.graph.store import ArrayGraph
from distspectral.graph.trial import tried
from distspectral.graph.weights import median_squared_distance, reweighted_rows
from distspectral.models.autoencoder import Autoencoder
from distspectral.models.encoded import Space
from distspectral.models.networks import Perceptron
from distspectral.recipes import SpectralRecipe
from distspectral.stages.codes import explained_variance
from distspectral.storage.rows.joined import JoinedVectors
from distspectral.storage.rows.vectors import ArrayVectors, Vectors


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
    rows: Vectors, recipe: SpectralRecipe, trainings: Trainings, lists: Neighbors | None = None
) -> Representation:
    """Return the representation of rows in memory.

    Args:
        rows: (N, D).
        recipe: which, and how it is learned.
        trainings: of this fit.
        lists: neighbours that were found elsewhere; None searches.

    Raises:
        CollapsedError: an encoder maps all rows to one point.
        ConfigError, TooFewRowsError, ConstantDataError: see :func:`distspectral.graph.knn.knn_graph`.
    """
    spaces: dict[Space, Vectors] = {"vector": rows}
    networks: dict[str, Perceptron] = {}
    explained: dict[str, Any] = {}
    trial = None
    if recipe.is_tried:
        trial = trainings.trial or tried(rows, recipe.open_spaces, recipe.graph, recipe.pca.n_components)
        explained, recipe = {"trial": dataclasses.asdict(trial)}, recipe.knowing(trial=trial)
    if recipe.makes_codes:
        model = _coder(rows, recipe, trainings)
        kept = explained_variance(model.encoder, model.decoder, rows)
        explained, recipe = explained | {"explained_variance": kept}, recipe.knowing(kept, trial)
        if recipe.searches_codes:
            networks[recipe.coder] = model.encoder
            spaces["code"] = _encoded(model.encoder, rows, recipe.coder)
    searched = spaces["code" if recipe.searches_codes else "vector"]
    search = recipe.graph.model_copy(update={"metric": recipe.metric_of("neighbors")})
    graph, facts = knn_graph(searched, search, recipe.affinity, lists, quiet=trainings.is_silent)
    if recipe.makes_features:
        siamese = recipe.trainings["siamese"].trainer(searched, graph)
        trainings.fit("siamese", siamese)
        networks["siamese"] = siamese.model.cpu()
        spaces["siamese"] = features = _encoded(networks["siamese"], searched, "siamese")
        if recipe.embedded_graph == "reweight":
            judged = None
            if recipe.affinity.space == "auto":
                asked = (search, recipe.affinity, recipe.cluster.n_clusters, recipe.seed)
                judged = fragmentation(searched, features, graph, *asked)
                explained["fragmentation"] = dataclasses.asdict(judged)
            if judged is None or not judged.fragments:
                graph = reweighted(graph, features)
        else:
            graph, facts = knn_graph(features, recipe.graph, recipe.affinity, quiet=trainings.is_silent)
    seen = [spaces[space] for space in recipe.seen]
    encoders = {argument: networks[stage] for argument, stage in recipe.encoders.items()}
    return Representation(
        seen[0] if len(seen) == 1 else JoinedVectors(seen),
        graph,
        facts | explained,
        {"inputs": tuple(recipe.seen), **encoders},
    )


def _coder(rows: Vectors, recipe: SpectralRecipe, trainings: Trainings) -> Autoencoder:
    """Return what encodes rows and rebuilds them, on the CPU."""
    if recipe.coder == "pca":
        components = principal_components(rows, recipe.pca.n_components, recipe.seed)
        trainings.take("pca", components)
        return components
    trainer = recipe.trainings["autoencoder"].trainer(rows)
    trainings.fit("autoencoder", trainer)
    model: Autoencoder = trainer.model.cpu()
    return model


def reweighted(graph: ArrayGraph, features: Vectors) -> ArrayGraph:
    """Return the graph with the same edges, weighed by distances between ``features`` (N, E)."""
    return ArrayGraph(*reweighted_rows(graph, features, 0, graph.n_rows, median_squared_distance(graph, features)))


def _encoded(network: Perceptron, rows: Vectors, trained: str) -> ArrayVectors:
    outputs = ArrayVectors(in_blocks(network, rows))
    refuse_collapse(outputs.mean, float(np.square(outputs.scale)), outputs.n_rows, "in memory", trained)
    return outputs

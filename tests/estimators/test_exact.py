"""Clusters of learned functions beside those of exact eigenvectors, on a graph with all that makes it hard at once."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score

from distspectral import SpectralNet
from distspectral.clustering.fit import fit_assigner
from distspectral.graph.components import component_labels
from distspectral.graph.knn import knn_graph
from distspectral.graph.spectrum import exact_spectrum
from distspectral.storage.rows.vectors import ArrayVectors
from tests.datasets import hard_parts

C = 12


def test_learned_and_exact_clusters_agree_on_parts_of_uneven_clusters_with_hubs_and_duplicates():
    rows, labels = hard_parts(C)
    learner = SpectralNet(
        C, representation="input", affinity_space="euclidean", hidden=(64, 64), max_steps=200, random_state=0
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of functions beyond the clusters
        learner.fit(rows)
    recipe = learner.recipe(rows.shape[1], len(rows))
    graph, facts = knn_graph(ArrayVectors(rows), recipe.graph, recipe.affinity)
    assert facts["components"] == 3
    values, vectors, _ = exact_spectrum(graph, recipe.n_components)
    functions = vectors.astype(np.float32)
    parts = component_labels(graph).__getitem__
    assigner, _ = fit_assigner(functions.__getitem__, graph, values, C, recipe.cluster, recipe.seed, components=parts)
    exact = assigner(torch.from_numpy(functions))[0].numpy()
    assert adjusted_rand_score(exact, learner.labels_) >= 0.95
    assert adjusted_rand_score(labels, learner.labels_) >= 0.95
    assert len(np.unique(learner.labels_)) == C

"""The stage ``cluster``: parts of the graph in a whole run, and what a report says of the fit."""

from __future__ import annotations

import functools
import re

import numpy as np
import pytest
import torch
from sklearn.metrics import adjusted_rand_score

from distspectral.clustering.config import ClusterConfig
from distspectral.clustering.fit import fit_assigner
from distspectral.datasets import write_vectors
from distspectral.graph.config import AffinityConfig, GraphConfig
from distspectral.graph.knn import knn_graph
from distspectral.graph.spectrum import exact_spectrum
from distspectral.graph.store import ArrayGraph
from distspectral.stages.cluster import CLUSTER
from distspectral.storage.rows.vectors import ArrayVectors
from tests.datasets import ring_and_blobs
from tests.runs import write_run
from tests.stages.chain import opened

FACTS = {
    "n_clusters": 3,
    "n_components": 6,
    "n_spread": 5,
    "asked": 3,
    "restarts": {"runs": 10, "lowest": 9, "rand_index": 0.99},
    "merged": False,
    "parts": 1,
    "strayed": 0.0,
}


@functools.cache
def overlapping(sizes, pairs=()):
    """Rows of Gaussians that overlap, one of each size, some in near pairs: eigenvectors, graph, values and labels."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(len(sizes)), sizes)
    centres = 4.2 * np.eye(8)[: len(sizes)] if not pairs else 4 * np.eye(10)[: len(sizes)]
    for first, second in pairs:
        centres[second] = centres[first] + 3.2 * np.eye(10)[7]
    rows = (rng.normal(size=(len(labels), centres.shape[1])) + centres[labels]).astype(np.float32)
    graph, facts = knn_graph(ArrayVectors(rows), GraphConfig(n_neighbors=15), AffinityConfig(space="euclidean"))
    values, vectors, _ = exact_spectrum(graph, len(sizes) + 3)
    assert facts["components"] == 1
    return vectors.astype(np.float32), graph, values, labels


def fitted(sizes, normalize_rows, method="auto", pairs=()):
    """Return the adjusted Rand index of the clusters with the Gaussians, and the facts of the fit."""
    vectors, graph, values, labels = overlapping(sizes, pairs)
    config = ClusterConfig(normalize_rows=normalize_rows, method=method, restarts=3)
    assigner, facts = fit_assigner(vectors.__getitem__, graph, values, len(sizes), config, 0, components=None)
    return adjusted_rand_score(labels, assigner(torch.from_numpy(vectors))[0]), facts


def test_the_graph_tells_that_a_large_cluster_was_split_in_place_of_small_ones():
    assert fitted((300, 300, 30), True)[0] < 0.8
    score, facts = fitted((300, 300, 30), "auto")
    assert score > 0.9
    assert facts["normalize_rows"] is False
    assert facts["normalized_cuts"][1] < 0.5 * facts["normalized_cuts"][0]


@pytest.mark.parametrize(("in_speck", "normalized"), [(6, True), (20, True), (40, False)])
def test_a_speck_is_no_cluster_however_little_it_cuts(in_speck, normalized):
    rng = np.random.default_rng(0)
    rows = np.concatenate([rng.normal(size=(600, 4)), rng.normal(size=(in_speck, 4)) + 20]).astype(np.float32)
    graph, _ = knn_graph(
        ArrayVectors(rows), GraphConfig(n_neighbors=5), AffinityConfig(space="euclidean", scale_neighbor=3)
    )
    values, vectors, _ = exact_spectrum(graph, 5)
    embed = vectors.astype(np.float32).__getitem__
    _, facts = fit_assigner(embed, graph, values, 2, ClusterConfig(restarts=3), 0, components=None)
    assert facts["normalized_cuts"][1] < 0.1 * facts["normalized_cuts"][0]
    assert facts["normalize_rows"] is normalized


def test_functions_of_specks_do_not_lengthen_the_diffusion_time():
    vectors, graph, values, labels = overlapping((200, 200, 200))
    specks = np.zeros((len(labels), 2), np.float32)
    specks[[0, 1], [0, 1]] = np.sqrt(len(labels))
    with_specks = np.hstack([vectors[:, :1], specks, vectors[:, 1:]])
    config, embed = ClusterConfig(normalize_rows=True, method="k_means", restarts=3), with_specks.__getitem__
    values = np.concatenate([values[:1], [1e-5, 2e-5], values[1:]])
    assigner, facts = fit_assigner(embed, graph, values, 3, config, 0, components=None)
    assert (facts["n_components"], facts["n_spread"], facts["n_counted"]) == (8, 6, 5)
    assert assigner.scale[5] == pytest.approx(0.5, abs=1e-5)
    assert adjusted_rand_score(labels, assigner(torch.from_numpy(with_specks))[0]) > 0.9


def test_rows_are_normalised_where_that_cuts_no_more():
    score, facts = fitted((200, 200, 200), "auto")
    assert score > 0.9
    assert facts["normalize_rows"] is True
    assert "normalized_cuts" not in fitted((200, 200, 200), True)[1]


def test_a_split_is_exchanged_for_a_merger_where_that_cuts_less():
    score, facts = fitted((600, 50, 50, 50), True, method="k_means")
    assert score < 0.5
    assert "exchanges" not in facts
    score, facts = fitted((600, 50, 50, 50), True)
    assert score > 0.9
    assert facts["exchanges"] == 1


PAIRED = {"sizes": (300, 300, 60, 60, 60, 60), "pairs": ((2, 3), (4, 5))}


def test_micro_clusters_are_merged_where_k_means_splits_a_large_cluster_in_place_of_small_ones():
    k_means, facts = fitted(**PAIRED, normalize_rows="auto", method="k_means")
    assert k_means < 0.6
    assert (facts["merged"], "modularity" in facts) == (False, False)
    merged, facts = fitted(**PAIRED, normalize_rows="auto")
    assert merged > 0.8
    assert (facts["merged"], facts["micro_clusters"]) == (True, 120)
    assert facts["cut_shares"][1] < 0.6 * facts["cut_shares"][0]
    assert facts["modularity"][1] > facts["modularity"][0]
    assert facts["restarts"]["runs"] == 3, "k-means is told all the same"


def test_clusters_of_uneven_size_stay_those_of_k_means_where_merging_cuts_more():
    score, facts = fitted((300, 80, 80), True)
    assert score == 1
    assert facts["merged"] is False
    assert facts["modularity"][1] > facts["modularity"][0], "by modularity alone the large one would be split"
    assert facts["cut_shares"][1] > 10 * facts["cut_shares"][0]


def test_the_number_of_clusters_is_the_first_of_ranked_candidates():
    vectors, graph, values, labels = overlapping((300, 250, 200, 280))
    embed, config = vectors.__getitem__, ClusterConfig(restarts=3)
    assigner, facts = fit_assigner(embed, graph, values, "auto", config, 0, components=None, suggested=2)
    assert facts["candidates"][0]["n_clusters"] == facts["n_clusters"] == 4
    assert len(facts["candidates"]) == 3
    assert adjusted_rand_score(labels, assigner(torch.from_numpy(vectors))[0]) > 0.9
    assert CLUSTER.lines(facts)["candidates (score, stability)"].startswith("4 (0.")


def test_few_rows_take_the_number_that_the_spectrum_suggests():
    vectors, graph, values, _ = overlapping((40, 40, 40))
    _, facts = fit_assigner(
        vectors.__getitem__, graph, values, "auto", ClusterConfig(), 0, components=None, suggested=3
    )
    assert (facts["candidates"], facts["n_clusters"]) == ([], 3)


def test_the_edges_of_a_sample_of_the_rows_do(monkeypatch):
    vectors, graph, values, labels = overlapping(**PAIRED)
    monkeypatch.setattr("distspectral.clustering.fit.CUT_ROWS", 600)
    gathered, embedded = [], []

    class Counted(ArrayGraph):
        def gather(self, rows):
            gathered.append(len(rows))
            return super().gather(rows)

    def embed(rows):
        embedded.append(len(rows))
        return vectors[rows]

    counted = Counted(*graph.block(0, graph.n_rows))
    config = ClusterConfig(restarts=3, sample_rows=700)
    assigner, facts = fit_assigner(embed, counted, values, 6, config, 0, components=None)
    assert gathered == [600]
    assert len(embedded) == 1, "rows and their neighbours are embedded together"
    assert 700 < embedded[0] <= len(labels)
    assert facts["merged"] is True
    assert adjusted_rand_score(labels, assigner(torch.from_numpy(vectors))[0]) > 0.7


def notes(**changes):
    return CLUSTER.notes({"cluster": FACTS | changes, "calibrate": {"suggested_n_clusters": 3}})


def test_a_run_merges_no_parts_while_it_splits_another(tmp_path):
    rows, labels = ring_and_blobs()
    path = write_run(
        tmp_path, spectral={"n_components": None}, network={"hidden": [64, 32]}, embed={"columns": ["cluster"]}
    )
    write_vectors(str(tmp_path / "data"), rows, labels=labels, sizes=(200, 100, 40))
    pipeline = opened(path, "train.max_steps=150", "train.batch_size=256")
    for name in pipeline.chain.outputs:
        pipeline.stage(name)
    made, output = (pipeline.chain.artifact(name).manifest() for name in ("cluster", "embed"))
    assert (made.properties["parts"], made.properties["strayed"]) == (3, 0)
    assert made.properties["restarts"]["runs"] == 2
    assert output.metrics["agreement"]["ari"] == 1


def test_a_good_fit_has_no_notes():
    assert notes() == []
    assert notes(restarts={"runs": 10, "lowest": 4, "rand_index": 0.8}) == [], "the best of ten is found again"
    assert notes(restarts={"runs": 1, "lowest": 1, "rand_index": 1.0}) == []
    merged = {"merged": True, "micro_clusters": 60, "cut_shares": [0.2, 0.1]}
    assert notes(restarts={"runs": 10, "lowest": 1, "rand_index": 0.8}, **merged) == [], "k-means does not decide"


def test_the_way_to_the_clusters_is_told_in_words():
    assert CLUSTER.lines(FACTS)["found by"].startswith("9 of 10 runs of k-means")
    merged = FACTS | {"merged": True, "micro_clusters": 60, "cut_shares": [0.043, 0.041]}
    words = "merged from 60 micro-clusters, which cuts 4.1% of the graph where k-means cuts 4.3%"
    assert CLUSTER.lines(merged)["found by"] == words
    assert CLUSTER.lines(merged | {"exchanges": 0})["found by"] == words
    told = "then 2 times a cluster was split while two others became one, for that cuts less of the graph"
    assert CLUSTER.lines(merged | {"exchanges": 2})["found by"] == f"{words}; {told}"


WEAK = {"asked": "auto", "candidates": [{"n_clusters": 5, "score": 0.11, "rise": 0.1, "gap": 0.1, "stability": 0.9}]}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (WEAK, r"No number of clusters stands out: 5 \(0.11, 0.90\), where noise .* recut"),
        ({"restarts": {"runs": 10, "lowest": 1, "rand_index": 0.81}}, "1 of 10 runs .* agree with it by 0.81"),
        ({"n_spread": 2}, "Only 2 of the 6 functions .* and 3 clusters .* spectral.n_components = 12"),
        ({"parts": 5}, "5 parts that no edge joins, more than the 3 clusters"),
        ({"parts": 2, "strayed": 0.02}, "2.0% of the rows .* train.max_steps"),
    ],
)
def test_what_to_doubt_is_noted(changes, words):
    (note,) = notes(**changes)
    assert re.search(words, note)

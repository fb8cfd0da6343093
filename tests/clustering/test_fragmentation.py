from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy import sparse

from distspectral import SpectralNet
from distspectral.clustering import fragmentation as module
from distspectral.clustering.fragmentation import Fragmentation, fragmentation
from distspectral.graph.config import AffinityConfig, GraphConfig
from distspectral.graph.knn import knn_graph
from distspectral.graph.search.sampling import sampled
from distspectral.graph.store import MappedGraph
from distspectral.mapping import local_map
from distspectral.stages.reweight import reweight
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.artifact.output import Output
from distspectral.storage.rows.sparse import SparseVectors
from distspectral.storage.rows.vectors import ArrayVectors
from tests.stages.chain import pipeline_upto

CLUSTERS, EACH = 4, 150


@pytest.fixture(scope="module")
def rows():
    generator = np.random.default_rng(0)
    centers = 3.0 * np.eye(CLUSTERS, 5)
    return np.repeat(centers, EACH, 0) + generator.normal(size=(CLUSTERS * EACH, 5))


def judged(rows, features, n_clusters=CLUSTERS):
    vectors, search, affinity = ArrayVectors(rows), GraphConfig(), AffinityConfig()
    graph, _ = knn_graph(vectors, search, affinity)
    return fragmentation(vectors, ArrayVectors(features), graph, search, affinity, n_clusters, 0)


def specks(rows):
    """Return features that cut off four groups of neighbours and tell nothing else apart."""
    features = 0.01 * np.random.default_rng(1).normal(size=(len(rows), 2))
    for place, row in enumerate((3, 5, 7, 9)):
        near = np.argsort(np.square(rows - rows[row]).sum(1))[:12]
        features[near] = 20.0 * (place + 1)
    return features


def test_weights_that_part_the_clusters_do_not_fragment(rows):
    labels = np.repeat(np.arange(CLUSTERS), EACH)
    found = judged(rows, np.eye(CLUSTERS)[labels] + 0.1 * rows[:, :CLUSTERS])
    assert not found.fragments
    assert found.siamese == pytest.approx(CLUSTERS, rel=0.02)
    assert found.n_rows == len(rows)


@pytest.mark.parametrize("n_clusters", [CLUSTERS, "auto"])
def test_weights_that_cut_off_specks_fragment(rows, n_clusters):
    found = judged(rows, specks(rows), n_clusters)
    assert found.fragments
    assert found.siamese < 0.9 * found.euclidean
    assert found.siamese_smallest < 0.1 < found.euclidean_smallest
    assert "the distances of the search weigh the edges" in found.in_words


def test_the_border_is_a_share_of_the_clusters_by_distances():
    assert not Fragmentation(10.0, 9.81, 1).fragments
    assert Fragmentation(10.0, 9.79, 1).fragments


@pytest.mark.parametrize(
    ("euclidean", "siamese", "fragments"), [(0.15, 0.05, True), (0.15, 0.1, False), (0.05, 0.05, False), (1, 1, False)]
)
def test_specks_by_learned_weights_alone_drop_them(euclidean: float, siamese: float, fragments: bool) -> None:
    found = Fragmentation(10.0, 10.0, 1, euclidean, siamese)
    assert found.fragments is fragments
    assert ("less than a tenth" in found.in_words) is fragments


def test_of_many_rows_a_sample_is_judged(rows, monkeypatch):
    monkeypatch.setattr(module, "TRIAL_ROWS", 400)
    mixed = np.random.default_rng(2).permutation(len(rows))
    features, seen = specks(rows)[mixed], []
    monkeypatch.setattr(module, "median_squared_distance", lambda graph, those: seen.append(those.block(0, 400)) or 1.0)
    found = judged(rows[mixed], features)
    np.testing.assert_array_equal(seen, features[sampled(len(rows), 400, 0)][None].astype(np.float32))
    assert found.n_rows == 400
    assert found.euclidean == pytest.approx(CLUSTERS, rel=0.05)
    assert found.fragments


def test_a_sample_of_thin_rows_stays_thin_and_warns_of_nothing(rows, monkeypatch, caplog):
    monkeypatch.setattr(module, "TRIAL_ROWS", 400)
    apart = sparse.csr_matrix(np.kron(np.repeat(np.eye(CLUSTERS), EACH, 0), np.ones(5)) * np.tile(rows + 20, CLUSTERS))
    wide = SparseVectors(sparse.hstack([apart, sparse.csr_matrix((len(rows), 400))]))
    search, affinity = GraphConfig(metric="l2"), AffinityConfig()
    graph, facts = knn_graph(wide, search, affinity)
    assert facts["components"] > 1
    caplog.clear()
    monkeypatch.setattr(SparseVectors, "gather", None)
    monkeypatch.setattr(SparseVectors, "block", None)
    found = fragmentation(wide, ArrayVectors(rows), graph, search, affinity, CLUSTERS, 0)
    assert found.n_rows == 400
    assert not caplog.records


def test_next_to_equal_rows_are_not_judged(rows, monkeypatch):
    monkeypatch.setattr(module, "TRIAL_ROWS", 400)
    alike = np.zeros((20_000, 2), np.float32)
    alike[-1] = 1
    assert not judged(alike, alike).fragments


def test_a_run_judges_and_keeps_the_weights_of_distances_where_the_others_fragment(tmp_path):
    run = pipeline_upto(tmp_path, "reweight", affinity={"space": "auto"})
    graph, features, learned = (run.chain.artifact(stage) for stage in ("graph", "features", "reweight"))
    facts = learned.manifest().properties["fragmentation"]
    assert set(facts) == {"euclidean", "siamese", "n_rows", "euclidean_smallest", "siamese_smallest"}
    assert not Fragmentation(**facts).fragments

    found = Fragmentation(4.0, 2.0, 10)
    output = Output(Artifact(str(tmp_path / "kept")), "reweight", "print", {}, {})
    kept = reweight(graph, features, output, local_map, lambda graph: found)
    assert kept.properties["fragmentation"] == dataclasses.asdict(found)
    by_distances, taken, learned_ones = (
        MappedGraph(one).block(0, kept.n_rows) for one in (graph, output.artifact, learned)
    )
    np.testing.assert_array_equal(taken, by_distances)
    assert not np.array_equal(learned_ones[1], by_distances[1])


@pytest.mark.parametrize("fragments", [False, True])
def test_an_estimator_takes_the_weights_that_do_not_fragment(rows, fragments, monkeypatch):
    found = Fragmentation(4.0, 2.0 if fragments else 4.0, len(rows))
    monkeypatch.setattr("distspectral.estimators.representation.fragmentation", lambda *asked: found)
    auto, told = (
        SpectralNet(CLUSTERS, affinity_space=space, max_steps=30, random_state=0).fit(rows)
        for space in ("auto", "siamese")
    )
    assert auto.graph_["fragmentation"] == dataclasses.asdict(found)
    assert np.array_equal(auto.eigenvalues_, told.eigenvalues_) is not fragments

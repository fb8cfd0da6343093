from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from distspectral.graph import linking
from distspectral.graph.components import component_labels
from distspectral.graph.config import AffinityConfig, GraphConfig
from distspectral.graph.distances import gathered_queries, under_metric
from distspectral.graph.knn import knn_graph
from distspectral.graph.links import MOST_OF_ONE, Links, find_links, nearest_outside
from distspectral.graph.store import ArrayGraph
from distspectral.storage.rows.vectors import ArrayVectors, FleetingVectors
from tests.datasets import packed

RNG = np.random.default_rng(0)
CENTRES = np.array([[0, 0], [30, 0], [64, 0], [30, 50]])
ROWS = np.concatenate([RNG.standard_normal((size, 2)) + c for size, c in zip((90, 40, 30, 12), CENTRES, strict=True)])
ROWS = ROWS.astype(np.float32)
PIECE = np.repeat(np.arange(4), (90, 40, 30, 12))


def graph(rows=ROWS, connect="nearest", k=4, **affinity):
    config = GraphConfig(n_neighbors=k, connect=connect)
    return knn_graph(ArrayVectors(rows), config, AffinityConfig(scale_neighbor=3, **affinity))


def test_components_become_one_by_the_nearest_pairs():
    loose, facts = graph(connect="none")
    assert facts["components"] == 4
    assert "links" not in facts
    linked, facts = graph()
    assert (facts["components"], facts["components_before"], facts["links"]) == (1, 4, 3)
    ids, affinities = linked.block(0, len(ROWS))
    assert (affinities > 0).all()
    added = np.argwhere(PIECE[ids] != PIECE[:, None])
    assert len(added) == 3
    distances = cdist(ROWS, ROWS)
    for row, slot in added:
        assert slot == 3
        apart = distances[PIECE[row] == PIECE][:, PIECE[row] != PIECE]
        assert distances[row, ids[row, slot]] == pytest.approx(apart.min(), rel=1e-5)
    same = ids == loose.block(0, len(ROWS))[0]
    assert np.count_nonzero(~same) == 3


def test_many_rounds_join_what_the_first_joins_in_pairs():
    pairs = np.array([[0.0], [10], [100], [110], [1000], [1010]])
    rows = (pairs[:, None] + np.linspace(0, 1, 20)[None, :, None]).reshape(-1, 1).astype(np.float32)
    linked, facts = graph(rows)
    assert (facts["components"], facts["components_before"]) == (1, 6)
    assert len(np.unique(component_labels(linked))) == 1


def test_a_component_of_many_rows_asks_through_some():
    assert 2 * MOST_OF_ONE < 150
    rows = np.concatenate([RNG.standard_normal((150, 2)), RNG.standard_normal((160, 2)) + CENTRES[1]])
    rows, asked = rows.astype(np.float32), []

    class AskedVectors(ArrayVectors):
        def gather(self, rows):
            asked.append(len(rows))
            return super().gather(rows)

    links = find_links(graph(rows, connect="none")[0], AskedVectors(rows))
    assert (links.components, len(links.rows), asked) == (2, 1, [MOST_OF_ONE])


def test_a_component_infinitely_far_away_stays_alone():
    rows = np.array([[0.0], [1], [2], [1e20], [2e20]]).astype(np.float32)
    ids = np.array([[1], [0], [1], [4], [3]])
    with np.errstate(over="ignore", invalid="ignore"):
        links = find_links(ArrayGraph(ids, np.ones(ids.shape, np.float32)), ArrayVectors(rows))
    assert (links.components, len(links.rows)) == (2, 0)


def test_several_links_of_a_row_take_several_places():
    links = Links(np.array([3, 7, 7]), np.array([90, 91, 92]), np.array([5, 6, 7], np.float32), 4)
    ids, distances = np.tile(np.arange(20, 24), (10, 1)), np.tile(np.arange(4, dtype=np.float32), (10, 1))
    new_ids, new_distances = links.applied(0, ids, distances)
    assert new_ids[3].tolist() == [20, 21, 22, 90]
    assert new_ids[7].tolist() == [20, 21, 92, 91]
    assert new_distances[7].tolist() == [0, 1, 7, 6]
    assert ids[7].tolist() == [20, 21, 22, 23]
    np.testing.assert_array_equal(links.applied(4, ids[4:6], distances[4:6])[0], ids[4:6])


def test_under_the_inner_product_a_link_leads_to_the_largest_product_outside():
    rows = np.random.default_rng(1).standard_normal((300, 8)).astype(np.float32)
    vectors, component = under_metric(ArrayVectors(rows), "inner_product"), np.arange(300) % 3
    asked = np.arange(0, 300, 7)
    queries = gathered_queries(vectors, asked)
    targets, squared = nearest_outside(vectors, queries, component[asked], component, 0, 300)
    products = np.where(component[asked][:, None] == component, -np.inf, rows[asked] @ rows.T)
    np.testing.assert_array_equal(targets, products.argmax(1))
    largest = np.square(rows).sum(1).max()
    np.testing.assert_allclose(squared, np.square(rows[asked]).sum(1) + largest - 2 * products.max(1), rtol=1e-4)


def test_links_of_an_artifact_ask_as_a_search_does(tmp_path):
    vectors = packed(tmp_path, ROWS)
    asked = np.array([3, 100, 171])
    level = under_metric(FleetingVectors(vectors), "inner_product")
    np.testing.assert_array_equal(linking._read(vectors, "inner_product", asked), gathered_queries(level, asked))
    assert (linking._read(vectors, "inner_product", asked)[:, -1] == 0).all()

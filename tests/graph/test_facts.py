from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.sparse
import scipy.stats

from distspectral.graph.facts import (
    EDGE_FACTS,
    HISTOGRAM_BINS,
    Tally,
    all_facts,
    component_facts,
    graph_facts,
    pieces_are_clusters,
    pieces_in_words,
    tally_of,
)
from distspectral.graph.store import ArrayGraph

RNG = np.random.default_rng(0)
IDS = RNG.integers(0, 200, (200, 5))
WEIGHTS = RNG.random((200, 5)).astype(np.float32)


def degrees():
    w = scipy.sparse.coo_array(
        (WEIGHTS.ravel().astype(float), (np.repeat(np.arange(200), 5), IDS.ravel())), shape=(200, 200)
    ).toarray()
    return (w + w.T).sum(axis=1)


def test_degrees_are_row_sums_of_the_symmetrised_matrix():
    tally = tally_of(ArrayGraph(IDS, WEIGHTS), block_rows=6)
    np.testing.assert_allclose(tally.degree, degrees(), rtol=1e-12)


def test_facts_agree_with_the_degrees():
    facts, degree = tally_of(ArrayGraph(IDS, WEIGHTS)).degree_facts(), degrees()
    assert np.isclose(facts["total_affinity"], WEIGHTS.sum(dtype=np.float64), rtol=1e-12)
    assert (facts["degree_min"], facts["degree_median"], facts["degree_max"]) == pytest.approx(
        (degree.min(), np.median(degree), degree.max()), rel=1e-12
    )
    assert sum(facts["degree_histogram"]["counts"]) == facts["counted_rows"] == 200
    assert len(facts["degree_histogram"]["edges"]) == HISTOGRAM_BINS + 1


def test_of_many_rows_some_are_counted_by_whoever_reads_their_edges_and_all_weight_is():
    whole = Tally(200, 30)
    for start in (0, 80, 150):
        stop = min(start + (80 if start == 0 else 70), 200)
        part = Tally(200, 30)
        part.add(start, IDS[start:stop], WEIGHTS[start:stop])
        whole.merge(part.part())
    everything = tally_of(ArrayGraph(IDS, WEIGHTS))
    assert len(whole.rows) == 30
    np.testing.assert_allclose(whole.degree, degrees()[whole.rows.rows], rtol=1e-12)
    np.testing.assert_array_equal(whole.incoming, everything.incoming[whole.rows.rows])
    assert whole.degree_facts()["counted_rows"] == 30
    assert whole.total == pytest.approx(everything.total, rel=1e-12)


def test_components_are_counted_and_the_largest_measured():
    facts = component_facts(ArrayGraph(np.array([[1], [0], [1], [4], [3]]), np.ones((5, 1))))
    assert facts == {
        "components": 2,
        "largest_component_share": 0.6,
        "small_components": [{"size": 2, "rows": [3, 4]}],
    }


def test_small_components_are_named_the_largest_first_and_few_rows_of_each():
    sizes = [9, 1, 2, 3, 4, 5, 7]
    starts = np.cumsum([0, *sizes])
    ids = np.concatenate([np.roll(np.arange(a, b), 1) for a, b in itertools.pairwise(starts)])[:, None]
    facts = component_facts(ArrayGraph(ids, np.ones((len(ids), 1))))
    assert [one["size"] for one in facts["small_components"]] == [7, 5, 4, 3, 2]
    assert facts["small_components"][0]["rows"] == list(range(24, 29))
    assert component_facts(ArrayGraph(ids[:9], np.ones((9, 1))))["small_components"] == []


def test_hubs_are_told_by_the_lists_alone():
    ids = IDS.copy()
    ids[:3] = np.arange(3)[:, None]  # no neighbours
    counts = np.bincount(ids[3:][ids[3:] != np.arange(3, 200)[:, None]], minlength=200)
    facts = tally_of(ArrayGraph(ids, np.zeros((200, 5), np.float32))).hub_facts()
    assert facts["in_degree_max"] == counts.max()
    assert facts["in_degree_skewness"] == pytest.approx(scipy.stats.skew(counts))
    assert facts["orphans"] == pytest.approx(np.mean(counts == 0))
    assert facts["hub_rows"] == np.argsort(-counts, kind="stable")[:5].tolist()
    assert facts["orphan_rows"] == np.flatnonzero(counts == 0)[:5].tolist()
    assert set(EDGE_FACTS) == {*facts, *component_facts(ArrayGraph(ids, WEIGHTS))}


def test_a_graph_that_hubs_rule_is_warned_of_with_the_remedy_and_once(caplog):
    facts = graph_facts(ArrayGraph(IDS, WEIGHTS))
    assert not caplog.messages
    star = np.tile(np.arange(5), (200, 1))
    star[:5] = (np.arange(5)[:, None] + np.arange(1, 6)) % 200
    ruled = graph_facts(ArrayGraph(star, WEIGHTS))
    (message,) = caplog.messages
    assert "95% of the rows are nobody's neighbour, and one is that of 199 others" in message
    assert "centered_cosine" in message
    all_facts(tally_of(ArrayGraph(star, WEIGHTS)), WEIGHTS.shape[1], None, of_same_edges=ruled)
    assert len(caplog.messages) == 1
    even = tally_of(ArrayGraph((np.arange(9)[:, None] + np.arange(1, 3)) % 9, np.ones((9, 2)))).hub_facts()
    none = {"hub_rows": [0, 1, 2, 3, 4], "orphan_rows": []}
    assert even == {"in_degree_max": 2, "in_degree_skewness": 0.0, "orphans": 0.0, **none}
    assert facts["orphans"] < 0.1


@pytest.mark.parametrize(
    ("changes", "harmless"),
    [
        ({}, True),
        ({"n_clusters": 5}, True),
        ({"n_clusters": 2}, False),
        ({"parts": 2}, False),
        ({"strayed": 0.01}, False),
    ],
    ids=[
        "clusters are pieces",
        "pieces are divided",
        "pieces are merged",
        "one is a fragment",
        "a cluster mixes pieces",
    ],
)
def test_pieces_are_harmless_where_no_cluster_holds_rows_of_two(changes, harmless):
    clusters = {"n_clusters": 3, "parts": 3, "strayed": 0.0} | changes
    assert pieces_are_clusters({"components": 3}, clusters) == harmless
    words = pieces_in_words({"components": 3}, clusters)
    assert (words is None) == harmless
    assert words is None or "graph.connect" in words


def test_pieces_are_a_warning_until_clusters_are_known_and_one_never_is():
    assert pieces_in_words({"components": 3}, None) is not None
    assert pieces_in_words({"components": 1}, None) is None

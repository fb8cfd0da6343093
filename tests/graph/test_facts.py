from __future__ import annotations

import numpy as np
import scipy.sparse

from distspectral.graph.facts import HISTOGRAM_BINS, component_facts, degree_facts, degrees
from distspectral.graph.store import ArrayGraph

RNG = np.random.default_rng(0)
IDS = RNG.integers(0, 200, (200, 5))
WEIGHTS = RNG.random((200, 5)).astype(np.float32)


def test_degrees_are_row_sums_of_the_symmetrised_matrix():
    w = scipy.sparse.coo_array(
        (WEIGHTS.ravel().astype(float), (np.repeat(np.arange(200), 5), IDS.ravel())), shape=(200, 200)
    ).toarray()
    np.testing.assert_allclose(degrees(ArrayGraph(IDS, WEIGHTS), block_rows=6), (w + w.T).sum(axis=1), rtol=1e-12)


def test_facts_agree_with_the_degrees():
    facts = degree_facts(ArrayGraph(IDS, WEIGHTS))
    degree = degrees(ArrayGraph(IDS, WEIGHTS))
    assert np.isclose(facts["total_affinity"], WEIGHTS.sum(dtype=np.float64), rtol=1e-12)
    assert (facts["degree_min"], facts["degree_median"], facts["degree_max"]) == (
        degree.min(),
        np.median(degree),
        degree.max(),
    )
    assert sum(facts["degree_histogram"]["counts"]) == 200
    assert len(facts["degree_histogram"]["edges"]) == HISTOGRAM_BINS + 1


def test_components_are_counted_and_the_largest_measured():
    facts = component_facts(ArrayGraph(np.array([[1], [0], [1], [4], [3]]), np.ones((5, 1))))
    assert facts == {"components": 2, "largest_component_share": 0.6}

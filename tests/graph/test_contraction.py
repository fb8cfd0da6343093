from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
from scipy.sparse import csgraph

from distspectral.graph.contraction import CONTRACTING, MERGING, POINTING, component_sizes, contracted
from distspectral.graph.links import Links
from distspectral.graph.runs import Lists, shard_runs
from distspectral.graph.store import AFFINITIES, NEIGHBORS, SQUARED_DISTANCES, write_rows
from distspectral.mapping import local_map
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.artifact.output import Output
from distspectral.storage.rows.by_row import ByRow


class Counting:
    def __init__(self, dies_at=None):
        self.asked, self.dies_at = [], dies_at

    def __call__(self, function, items, description, *, on_gpu=False):
        for item in reversed(items):
            if description == self.dies_at and len(self.asked) % 2:
                raise KeyboardInterrupt
            self.asked.append(description)
            yield function(item)


def written(folder, neighbors, values, sizes, weights=AFFINITIES):
    """Return a begun output that holds a graph in shards of these sizes, and how it is read."""
    output = Output(Artifact(str(folder)), "graph", "print", {}, {})
    output.begin()
    cuts = np.split(np.arange(len(neighbors)), np.cumsum(sizes)[:-1])
    shards = [
        write_rows(
            output.artifact,
            f"part-{index}.arrow",
            len(neighbors),
            {
                NEIGHBORS: neighbors[rows],
                weights: values[rows].astype(np.float16 if weights == AFFINITIES else np.float32),
            },
        )
        for index, rows in enumerate(cuts)
    ]
    return output, Lists(output.artifact, len(neighbors), weights), shard_runs(shards, run_rows=min(sizes))


def expected(neighbors, there):
    heads = np.repeat(np.arange(len(neighbors)), neighbors.shape[1])[there.ravel()]
    shape = (len(neighbors), len(neighbors))
    matrix = scipy.sparse.coo_array((np.ones(len(heads)), (heads, neighbors.ravel()[there.ravel()])), shape)
    _, labels = csgraph.connected_components(matrix, directed=False)
    _, first = np.unique(labels, return_index=True)
    return first[labels]


def found_labels(output, found, n_rows):
    if found.labels is None:
        return np.zeros(n_rows, np.int64)
    return output.artifact.load_array(found.labels)


@pytest.mark.parametrize("few_roots", [1, 1 << 20])
@pytest.mark.parametrize("span", [2, 400])
@pytest.mark.parametrize("seed", range(3))
def test_equals_scipy_on_the_whole_matrix_in_any_order(tmp_path, seed, span, few_roots):
    rng = np.random.default_rng(seed)
    neighbors = np.clip(np.arange(400)[:, None] + rng.integers(-span, span + 1, (400, 2)), 0, 399)
    values = rng.random((400, 2)) * (rng.random((400, 2)) < 0.5)
    shuffle = rng.permutation(400)
    neighbors, values = shuffle[neighbors][np.argsort(shuffle)], values[np.argsort(shuffle)]
    output, lists, runs = written(tmp_path, neighbors, values, [17] * 23 + [9])
    assert len(runs) == 23 + 1
    found = contracted(lists, runs, ByRow(output), local_map, to=output.artifact, few_roots=few_roots)
    labels = expected(neighbors, values.astype(np.float16) > 0)
    np.testing.assert_array_equal(found_labels(output, found, 400), labels)
    names, sizes = np.unique(labels, return_counts=True)
    assert (found.components, found.largest) == (len(names), sizes.max())
    assert found.components > 10
    told = component_sizes(ByRow(output).artifact, found)
    np.testing.assert_array_equal(told[0], names)
    np.testing.assert_array_equal(told[1], sizes)


def test_a_path_through_all_runs_is_one_component_and_a_ring_another(tmp_path):
    neighbors = np.maximum(np.arange(1000)[:, None] - 1, 0)
    neighbors[600] = 999
    output, lists, runs = written(tmp_path, neighbors, np.ones((1000, 1)), [10] * 100)
    counting = Counting()
    found = contracted(lists, runs, ByRow(output), counting, to=output.artifact)
    assert (found.components, found.largest) == (2, 600)
    np.testing.assert_array_equal(found_labels(output, found, 1000), np.where(np.arange(1000) < 600, 0, 600))
    assert counting.asked.count(CONTRACTING) == 100
    assert counting.asked.count(MERGING) == 7 + 1


def test_links_join_and_infinite_distances_do_not(tmp_path):
    neighbors = np.arange(40)[:, None] ^ 1  # pairs
    distances = np.ones((40, 1), np.float32)
    distances[6:8] = np.inf
    output, lists, runs = written(tmp_path, neighbors, distances, [10] * 4, SQUARED_DISTANCES)
    found = contracted(lists, runs, ByRow(output), local_map)
    assert found.components == 21
    links = Links(np.array([13, 27]), np.array([30, 4]), np.ones(2, np.float32), 21)
    linked = Lists(lists.artifact, 40, SQUARED_DISTANCES, links)
    found = contracted(linked, runs, ByRow(output), local_map, name="linked")
    assert found.components == 19  # 12 still leads to 13, and 26 to 27
    sizes = component_sizes(ByRow(output).artifact, found)
    assert dict(zip(*(one.tolist() for one in sizes), strict=True))[4] == 4


def test_what_an_interrupted_run_wrote_is_not_written_again(tmp_path):
    neighbors = np.arange(40)[:, None] ^ 1
    output, lists, runs = written(tmp_path, neighbors, np.ones((40, 1)), [10] * 4)
    broken, again = Counting(dies_at=CONTRACTING), Counting()
    with pytest.raises(KeyboardInterrupt):
        contracted(lists, runs, ByRow(output), broken)
    assert broken.asked.count(POINTING) == 4
    found = contracted(lists, runs, ByRow(output), again)
    assert found.components == 20
    assert POINTING not in again.asked

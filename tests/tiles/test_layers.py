from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from distspectral.errors import ConfigError, TooManyClustersError
from distspectral.spectral.tree import grown
from distspectral.tiles.layers import label_records, layer_sizes, layers_of, read_names

TREE = grown(np.exp(-np.abs(np.subtract.outer(np.arange(8.0), np.arange(8.0)))), np.arange(8) + 1, np.repeat([0, 1], 4))


def test_the_finest_layer_comes_first_and_each_is_a_cut_of_the_tree() -> None:
    layers = layers_of(TREE, [2, 8, 3, 3])
    assert [len(layer.nodes) for layer in layers] == [8, 3, 2]
    for layer, size in zip(layers, (8, 3, 2), strict=True):
        assert layer.of_leaf.tolist() == TREE.labels(size).tolist()
        assert TREE.rows[layer.nodes].tolist() == np.bincount(layer.of_leaf, TREE.rows[:8]).tolist()
    for finer, coarser in itertools.pairwise(layers):  # each label lies in one of the next layer
        assert len(set(zip(finer.of_leaf.tolist(), coarser.of_leaf.tolist(), strict=True))) == len(finer.nodes)


def test_sizes_go_down_to_a_few_and_hold_the_runs_own() -> None:
    assert layer_sizes(10, 128) == [128, 40, 10, 2]
    assert layer_sizes(20, 3064) == [3064, 1280, 320, 80, 20, 5]
    assert layer_sizes(3, 3) == [3]
    assert layer_sizes(1, 1) == [1]


@pytest.mark.parametrize("sizes", [[], [0], [3, -1]])
def test_no_clusters_are_no_layer(sizes: list[int]) -> None:
    with pytest.raises(ConfigError, match="expected numbers of clusters"):
        layers_of(TREE, sizes)


def test_a_layer_has_at_most_the_leaves() -> None:
    with pytest.raises(TooManyClustersError):
        layers_of(TREE, [9])


def test_a_label_stands_in_its_leaf_nearest_to_its_middle_under_its_name() -> None:
    places = np.stack([np.arange(8.0), np.zeros(8)], axis=1)
    rows = np.array([1, 1, 1, 0, 1, 1, 1, 20])
    layers = layers_of(TREE, [8, 2])
    records = label_records(layers, rows, places * rows[:, None], {int(layers[1].nodes[0]): "<b>left"})
    assert len(records) == 7 + 2, "a leaf without rows has no label"
    assert [(one["layer"], one["level"]) for one in records] == [(0, 1)] * 7 + [(1, 0)] * 2
    left, right = records[7:]
    assert (left["text"], left["x"], left["priority"]) == ("<b>left", 1.0, 3)
    assert (right["text"], right["x"], right["priority"]) == ("cluster 1", 7.0, 23)


def test_names_are_those_that_the_page_saves(tmp_path: Path) -> None:
    file = tmp_path / "names.json"
    file.write_text(json.dumps({"run": "mine", "names": [{"name": "a", "node": 3}, {"name": "b", "node": None}]}))
    assert read_names(str(file)) == {3: "a"}
    for content in ("[]", "{", '{"names": [{}]}'):
        file.write_text(content)
        with pytest.raises(ConfigError, match="Save names as JSON"):
            read_names(str(file))
    with pytest.raises(ConfigError, match="cannot be read"):
        read_names(str(tmp_path / "none.json"))

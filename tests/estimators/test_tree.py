"""Cuts of the estimator's tree, its facts of clusters, and probabilities."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy.cluster.hierarchy import is_monotonic, is_valid_linkage
from sklearn.datasets import make_blobs
from sklearn.exceptions import NotFittedError

from distspectral import SpectralNet
from distspectral.errors import ConfigError, TooManyClustersError

FAST = {"representation": "input", "affinity_space": "euclidean", "hidden": (32,), "batch_size": 256, "max_steps": 100}


@pytest.fixture(scope="module")
def rows():
    return make_blobs(600, n_features=5, centers=4, cluster_std=0.8, random_state=1)[0]


@pytest.fixture(scope="module")
def model(rows):
    return SpectralNet(4, n_neighbors=40, random_state=0, **FAST).fit(rows)


def test_the_tree_is_a_linkage_over_all_leaves(model):
    assert is_valid_linkage(model.tree_)
    assert is_monotonic(model.tree_)
    assert len(model.tree_) == model.leaves_.max()
    assert model.tree_[-1, 3] == len(model.tree_) + 1


def test_cuts_nest_and_one_of_them_is_the_fit(rows, model):
    np.testing.assert_array_equal(model.cut(4), model.labels_)
    finer, coarser = model.cut(12), model.cut(2)
    assert len(set(finer)) == 12
    assert len(set(zip(finer, model.labels_, strict=True))) == 12
    assert len(set(zip(model.labels_, coarser, strict=True))) == 4
    assert (np.diff(np.bincount(finer)) <= 0).all()


@pytest.mark.parametrize("n_clusters", [2, 4, np.int64(9)])
def test_new_rows_follow_any_cut(rows, model, n_clusters):
    np.testing.assert_array_equal(model.cut(n_clusters, rows), model.cut(n_clusters))
    np.testing.assert_array_equal(model.cut(n_clusters, rows[7:8]), model.cut(n_clusters)[7:8])


def test_a_loaded_model_is_cut_alike(rows, model, tmp_path):
    model.save(tmp_path / "model.pt")
    loaded = SpectralNet.load(tmp_path / "model.pt")
    np.testing.assert_array_equal(loaded.cut(9, rows), model.cut(9))
    np.testing.assert_array_equal(loaded.tree_, model.tree_)


@pytest.mark.parametrize("n_clusters", [0, 2.5, True, "auto"])
def test_what_is_no_number_of_clusters_is_refused(model, n_clusters):
    with pytest.raises(ConfigError, match="n_clusters: expected an integer of at least 1"):
        model.cut(n_clusters)
    with pytest.raises(TooManyClustersError, match="of a tree of"):
        model.cut(10**6)


def test_clusters_are_told_in_numbers(model):
    table = model.cluster_table_
    np.testing.assert_array_equal(table["rows"], np.bincount(model.labels_))
    of_edges = {"conductance", "pieces", "nearest", "affinity"}
    assert set(table) == {"rows", "share", "silhouette", "outliers", "stability", *of_edges}
    assert (table["pieces"] == 1).all()
    assert (table["stability"] > 0.9).all(), "four blobs"
    assert all(len(column) == 4 for column in table.values())
    assert (table["silhouette"] > 0.5).all()
    assert (table["conductance"] < 0.1).all()


def test_probabilities_are_those_of_the_nearest_centroid(rows, model):
    found = model.predict_proba(rows)
    assert found.shape == (600, 4)
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-5)
    np.testing.assert_array_equal(found.argmax(1), model.labels_)


def test_outliers_of_the_training_rows_are_those_of_new_ones(rows, model, tmp_path):
    found = model.outliers(rows)
    np.testing.assert_array_equal(found, model.outliers_)
    assert found.mean() < 0.05
    far = rows + 100 * np.sign(np.random.default_rng(0).normal(size=rows.shape))
    assert model.outliers(far).mean() > 0.9
    shares = np.bincount(model.labels_, found, model.n_clusters_) / np.bincount(model.labels_)
    np.testing.assert_allclose(model.cluster_table_["outliers"], shares)
    model.save(tmp_path / "model.pt")
    np.testing.assert_array_equal(SpectralNet.load(tmp_path / "model.pt").outliers(far), model.outliers(far))


def test_the_training_rows_are_drawn_by_cluster_or_by_labels_of_the_caller(rows, model):
    ax = model.plot(ax=Figure().subplots())
    np.testing.assert_array_equal(ax.collections[0].get_offsets(), model.embedding_[:, 1:3])
    assert {text.get_text() for text in ax.texts} == {"0", "1", "2", "3"}
    by_name = model.plot(["left" if x < 0 else "right" for x in rows[:, 0]], ax=Figure().subplots())
    assert {text.get_text() for text in by_name.texts} == {"left", "right"}
    with pytest.raises(ConfigError, match=r"y: has 3 labels, but \d+ rows were fitted"):
        model.plot(["a", "b", "c"])
    with pytest.raises(NotFittedError):
        SpectralNet().plot()

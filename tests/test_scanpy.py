"""Cells in an AnnData: what is read, what is written and where, as scanpy's tools do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.datasets import make_blobs
from sklearn.metrics import adjusted_rand_score

from distspectral import SpectralNet
from distspectral.errors import ConfigError
from distspectral.scanpy import spectral

anndata = pytest.importorskip("anndata")

CELLS, KINDS = make_blobs(300, n_features=5, centers=3, cluster_std=0.8, random_state=1)
BRIEF: dict[str, Any] = {
    "representation": "input",
    "affinity_space": "euclidean",
    "n_neighbors": 30,
    "hidden": (16,),
    "batch_size": 128,
    "max_steps": 60,
}


@pytest.fixture
def cells() -> Any:
    made = anndata.AnnData(np.random.default_rng(0).random((300, 7)).astype("f4"))
    made.obsm["X_pca"] = CELLS
    return made


def test_results_stand_where_scanpy_looks_for_them(cells: Any, tmp_path: Any) -> None:
    assert spectral(cells, 3, **BRIEF) is None
    model = SpectralNet(3, random_state=0, **BRIEF).fit(CELLS)
    np.testing.assert_array_equal(cells.obsm["X_distspectral"], model.embedding_[:, 1:])
    assert cells.obs["distspectral"].dtype.name == "category"
    assert list(cells.obs["distspectral"].cat.categories) == ["0", "1", "2"]
    np.testing.assert_array_equal(cells.obs["distspectral"].astype(int), model.labels_)
    assert adjusted_rand_score(KINDS, cells.obs["distspectral"]) > 0.99
    found = cells.uns["distspectral"]
    assert found["params"].items() >= {"use_rep": "X_pca", "n_clusters": 3, "random_state": 0}.items()
    np.testing.assert_array_equal(found["eigenvalues"], model.eigenvalues_)
    assert found["certificate"] == model.certificate_["words"]

    for table in (cells.obs, cells.var):  # pandas 3 infers strings of its own, which not every AnnData can write
        table.index = table.index.astype(object)
    cells.write_h5ad(tmp_path / "cells.h5ad")
    read = anndata.read_h5ad(tmp_path / "cells.h5ad")
    assert read.uns["distspectral"]["params"]["hidden"].tolist() == [16]
    assert list(read.obs["distspectral"]) == list(cells.obs["distspectral"])


def test_a_copy_leaves_the_cells_alone(cells: Any) -> None:
    made = spectral(cells, 2, use_rep="X", key_added="mine", copy=True, **BRIEF)
    assert "mine" not in cells.obs
    assert "X_mine" not in cells.obsm
    assert made.uns["mine"]["params"]["use_rep"] == "X"
    assert made.obsm["X_mine"].shape[0] == 300
    assert made.obs["mine"].nunique() == 2


def test_without_components_the_features_are_taken(cells: Any) -> None:
    del cells.obsm["X_pca"]
    spectral(cells, 2, **BRIEF)
    assert cells.uns["distspectral"]["params"]["use_rep"] == "X"


def test_what_is_not_there_is_named(cells: Any) -> None:
    with pytest.raises(ConfigError, match=r"use_rep: adata\.obsm has no 'X_scvi'; there are X, X_pca"):
        spectral(cells, use_rep="X_scvi")
    with pytest.raises(ConfigError, match=r"adata: expected an AnnData \(got a ndarray\)"):
        spectral(CELLS)
    with pytest.raises(ConfigError, match=r"X: is an AnnData; call distspectral\.scanpy\.spectral\(X\)"):
        SpectralNet().fit(cells)

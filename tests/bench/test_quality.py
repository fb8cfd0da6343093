from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

from distspectral.bench.quality import compare_quality, summary
from distspectral.cli.app import app
from distspectral.datasets import write_vectors
from distspectral.errors import ConfigError, MissingDependencyError
from distspectral.orchestration.engine import LocalEngine
from tests.datasets import blobs

BRIEF = ("train.max_steps=60", "network.hidden=[16]", "representation=input", "affinity.space=euclidean")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("data")
    vectors, labels = blobs(240, 5)
    write_vectors(str(place), vectors, labels=np.array([f"kind {label}" for label in labels]), sizes=(100, 90, 50))
    return str(place)


@pytest.mark.filterwarnings("ignore:Graph is not fully connected")  # scikit-learn of these blobs
def test_methods_see_the_same_rows_and_labels_only_judge(folder, tmp_path):
    found = compare_quality(
        folder, str(tmp_path), (0, 1), ["exact", "k-means", "scikit-learn"], BRIEF, lambda config: LocalEngine(), 1
    )
    by_method = summary(found)
    assert set(by_method) == {
        "distspectral",
        "distspectral, held out",
        "exact eigenvectors of our graph",
        "k-means on vectors",
        "scikit-learn SpectralClustering",
    }
    assert {name: row["n_rows"] for name, row in by_method.items() if row["n_rows"] != 190} == {
        "distspectral, held out": 50
    }
    for name, row in by_method.items():
        assert row["acc"][0] > 0.95, name
    assert len([one for one in found if one["method"] == "distspectral"]) == 2


def test_the_command_prints_json_and_refuses_unknown_methods(folder, tmp_path):
    arguments = ["bench", "quality", folder, "--seed", "0", "--method", "k-means", "--local", "--json"]
    result = CliRunner().invoke(app, [*arguments, "--root", str(tmp_path), *(f"--set={one}" for one in BRIEF)])
    assert result.exit_code == 0, result.stderr
    [(_, found)] = json.loads(result.stdout).items()
    assert found["summary"]["distspectral"]["acc"][0] > 0.95
    with pytest.raises(ConfigError, match="'other' is none of exact, k-means"):
        compare_quality(folder, str(tmp_path), (0,), ["other"], BRIEF, lambda config: LocalEngine())


@pytest.mark.parametrize(("method", "package"), [("umap", "umap"), ("spectralnet", "spectralnet")])
def test_a_method_without_its_package_says_what_to_install(folder, tmp_path, monkeypatch, method, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingDependencyError, match=f"pip install {package}"):
        compare_quality(folder, str(tmp_path), (0,), [method], BRIEF, lambda config: LocalEngine())

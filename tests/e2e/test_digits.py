"""Real digits through every stage in one process, held against dense eigenvectors of the very graph it built."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from distspectral.bench.spectrum import compare_with_exact
from distspectral.config.load import validate_values
from distspectral.datasets import write_digits
from distspectral.errors import ConfigError
from distspectral.graph.spectrum import exact_spectrum
from distspectral.graph.store import MappedGraph
from distspectral.orchestration.engine import LocalEngine
from distspectral.orchestration.observer import SilentObserver
from distspectral.orchestration.pipeline import run
from distspectral.spectral.diagnostics import sin2_principal_angles
from distspectral.storage.artifact.directory import Artifact
from tests.oracles import Spectrum, dense_spectrum

E = 10


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    folder = tmp_path_factory.mktemp("digits")
    write_digits(str(folder / "data"))
    values: dict[str, Any] = {
        "name": "digits",
        "root": str(folder / "run"),
        "data": {"path": str(folder / "data"), "id_column": "id", "label_column": "label", "scale": 1 / 16},
        "representation": "input",
        "affinity": {"space": "euclidean"},
        "train": {"max_steps": 900, "device": "cpu"},
        "network": {"hidden": [256, 256]},
        "spectral": {"n_components": E},
        "cluster": {"n_clusters": 10},
    }
    run(validate_values(values, "test"), LocalEngine(), SilentObserver())
    return Artifact(str(folder / "run"))


@pytest.fixture(scope="module")
def embedding(root: Artifact) -> np.ndarray[Any, np.dtype[np.float32]]:
    shards = sorted(Path(root.path).glob("output/part-*.parquet"))
    return np.concatenate([np.stack(pq.read_table(shard)["embedding"].to_numpy()) for shard in shards])


@pytest.fixture(scope="module")
def spectrum(root: Artifact) -> Spectrum:
    """Of the dense Laplacian."""
    return dense_spectrum(MappedGraph(root.child("graph")))


@pytest.mark.slow
def test_subspace_and_ritz_sum_are_those_of_dense_eigenvectors(
    root: Artifact, embedding: np.ndarray[Any, np.dtype[np.float32]], spectrum: Spectrum
) -> None:
    angles = sin2_principal_angles(
        torch.from_numpy(embedding), torch.from_numpy(spectrum.vectors[:, :E]), torch.from_numpy(spectrum.mass)
    )
    assert angles.mean() <= 0.03
    ritz_values = np.array(root.child("model").manifest().properties["ritz_values"])
    assert np.all(np.diff(ritz_values) >= 0)
    assert ritz_values[:E].sum() == pytest.approx(spectrum.values[:E].sum(), rel=0.1)
    assert ritz_values[:E].sum() >= spectrum.values[:E].sum() - 1e-9, "Ritz values bound eigenvalues from above"


@pytest.mark.slow
def test_columns_are_orthonormal_under_the_degrees(
    embedding: np.ndarray[Any, np.dtype[np.float32]], spectrum: Spectrum
) -> None:
    gram = embedding.astype(float).T @ (embedding * spectrum.mass[:, None])
    np.testing.assert_allclose(gram, np.eye(E), atol=1e-5)  # what float32 outputs allow


@pytest.mark.slow
def test_clusters_are_as_good_as_those_of_exact_eigenvectors(root: Artifact) -> None:
    result = compare_with_exact(root)
    for score in ("acc", "nmi"):
        assert result["agreement"][score] == pytest.approx(result["exact_agreement"][score], abs=0.02)


@pytest.mark.slow
def test_the_sparse_spectrum_is_the_dense_one(root: Artifact, spectrum: Spectrum) -> None:
    values, vectors, degree = exact_spectrum(MappedGraph(root.child("graph")), E)
    np.testing.assert_allclose(values, spectrum.values[:E], atol=1e-6)
    np.testing.assert_allclose(degree / degree.sum(), spectrum.mass, rtol=1e-12)
    overlap = vectors.T @ (spectrum.vectors[:, :E] * spectrum.mass[:, None])
    np.testing.assert_allclose(np.abs(np.linalg.det(overlap)), 1.0, atol=1e-4)  # same span, orthonormal alike


@pytest.mark.slow
def test_more_functions_than_were_kept_cannot_be_compared(root: Artifact) -> None:
    with pytest.raises(ConfigError, match="keeps 10"):
        compare_with_exact(root, E + 1)

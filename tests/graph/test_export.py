"""What other libraries read is the graph of the run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
from typer.testing import CliRunner

from distspectral.cli.app import app
from distspectral.graph.export import affinity_matrix, distance_matrix, write_faiss
from distspectral.graph.store import SQUARED_DISTANCES, MappedGraph, write_rows
from distspectral.storage.artifact.directory import Artifact
from tests.runs import LEARNED, N_ROWS
from tests.stages.chain import pipeline_upto
from tests.storage.outputs import output


def export(run: Path, to: str, place: Path) -> str:
    result = CliRunner().invoke(app, ["graph", "export", str(run), str(place), "--to", to])
    assert result.exit_code == 0, result.output
    return result.output


def dense(artifact: Artifact, weights: str) -> np.ndarray:
    neighbors, values = MappedGraph(artifact, weights=weights).block(0, N_ROWS)
    matrix = np.zeros((N_ROWS, N_ROWS), np.float32)
    np.put_along_axis(matrix, neighbors, values, 1)
    np.fill_diagonal(matrix, 0)
    return matrix


def test_scipy_reads_the_symmetric_affinities(finished_run: Path, tmp_path: Path) -> None:
    export(finished_run.parent / "root", "npz", tmp_path / "graph.npz")
    directed = dense(Artifact(str(finished_run.parent / "root/graph")), "affinities")
    found = scipy.sparse.load_npz(tmp_path / "graph.npz")
    np.testing.assert_array_equal(found.toarray(), (directed + directed.T) / 2)


def test_faiss_pair_is_what_a_search_returns(finished_run: Path, tmp_path: Path) -> None:
    export(finished_run.parent / "root", "faiss", tmp_path / "pair")
    ids, distances = (np.load(tmp_path / "pair" / name) for name in ("ids.npy", "squared_distances.npy"))
    neighbors = MappedGraph(Artifact(str(finished_run.parent / "root/neighbors")), weights=SQUARED_DISTANCES)
    expected = neighbors.block(0, N_ROWS)
    assert (ids.dtype, distances.dtype) == (np.int64, np.float32)
    np.testing.assert_array_equal(ids, expected[0])
    np.testing.assert_array_equal(distances, expected[1])


def test_a_missing_neighbour_is_minus_one_at_infinity_and_no_entry(tmp_path: Path) -> None:
    out = output(tmp_path / "neighbors")
    out.begin()
    columns = {
        "neighbors": np.array([[1, 2], [0, 1], [0, 1]]),
        "squared_distances": np.array([[0, 4], [1, 0], [9, 16]], np.float32),
    }
    out.commit([write_rows(out.artifact, "part-00000.arrow", 3, columns)], {}, {})
    write_faiss(out.artifact, str(tmp_path / "pair"))
    assert np.load(tmp_path / "pair/ids.npy").tolist() == [[1, 2], [0, -1], [0, 1]]
    assert np.load(tmp_path / "pair/squared_distances.npy")[1].tolist() == [1, np.inf]
    matrix = distance_matrix(out.artifact)
    assert matrix.nnz == 5, "the distance 0 to another row is an entry, a missing neighbour is none"
    assert matrix.toarray().tolist() == [[0, 0, 2], [1, 0, 0], [3, 4, 0]]


def test_a_run_in_a_learned_space_exports_the_graph_it_was_trained_on(tmp_path: Path) -> None:
    pipeline = pipeline_upto(tmp_path, "calibrate", **LEARNED)
    export(tmp_path / "root", "npz", tmp_path / "graph.npz")
    found = scipy.sparse.load_npz(tmp_path / "graph.npz")
    assert (found != affinity_matrix(pipeline.chain.artifact("reweight"))).nnz == 0


def test_anndata_reads_ids_affinities_and_distances(finished_run: Path, tmp_path: Path) -> None:
    anndata = pytest.importorskip("anndata")
    export(finished_run.parent / "root", "anndata", tmp_path / "graph.h5ad")
    found = anndata.read_h5ad(tmp_path / "graph.h5ad")
    assert list(found.obs_names[:2]) == ["0", "1"]
    assert found.obsp["connectivities"].shape == (N_ROWS, N_ROWS)
    assert (found.obsp["distances"].getnnz(1) == 8).all()


def test_of_a_folder_that_is_no_run_no_file_is_left(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["graph", "export", str(tmp_path / "none"), str(tmp_path / "graph.npz")])
    assert result.exit_code == 2
    assert not (tmp_path / "graph.npz").exists()

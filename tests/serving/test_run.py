"""What a finished run tells in Python is what stands in its files."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from matplotlib.figure import Figure

from distspectral import Run
from distspectral.config import load_config
from distspectral.errors import ConfigError, MissingArtifactError, NonFiniteRowError, ShardWidthError
from distspectral.orchestration.engine import LocalEngine
from distspectral.orchestration.observer import SilentObserver
from distspectral.orchestration.pipeline import run
from tests.datasets import blobs
from tests.runs import DIM, N_ROWS, write_metric_run


@pytest.fixture
def root(finished_run: Path) -> Path:
    return finished_run.parent / "root"


def test_columns_are_those_of_the_output_in_order(root: Path) -> None:
    table, found = pq.read_table(root / "output"), Run(root)
    assert found.to_arrow() == table
    assert found.to_pandas(["id", "cluster"])["cluster"].tolist() == table["cluster"].to_pylist()
    assert found.ids().to_pylist() == list(range(N_ROWS))
    np.testing.assert_array_equal(found.clusters(), table["cluster"].to_numpy())
    np.testing.assert_array_equal(found.embedding(), np.stack(table["embedding"].to_numpy()))
    np.testing.assert_array_equal(found.map(), np.stack([table["x"].to_numpy(), table["y"].to_numpy()], axis=1))
    assert found.dataset().count_rows() == N_ROWS


def test_polars_reads_the_same(root: Path) -> None:
    pytest.importorskip("polars")
    assert Run(root).to_polars(["id"])["id"].to_list() == list(range(N_ROWS))


def test_metrics_and_config_are_the_runs(root: Path, finished_run: Path) -> None:
    assert Run(root).metrics["n_rows"] == N_ROWS
    assert Run(str(root)).config == load_config(finished_run)


def test_rows_in_memory_get_what_the_output_says_of_them(root: Path) -> None:
    found, vectors = Run(root), blobs(N_ROWS, DIM)[0]
    made = found.embed(vectors)
    np.testing.assert_allclose(made["embedding"], found.embedding(), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(made["cluster"], found.clusters())
    assert made["distance"].shape == (N_ROWS,)
    np.testing.assert_allclose(np.stack([made["x"], made["y"]], axis=1), found.map(), rtol=1e-4, atol=1e-4)
    as_lists = np.array([None] * 3, dtype=object)
    as_lists[:] = [list(map(float, row)) for row in vectors[:3]]
    np.testing.assert_allclose(found.embed(as_lists)["embedding"], made["embedding"][:3], atol=1e-5)


def test_rows_that_do_not_fit_are_named(root: Path) -> None:
    vectors = blobs(5, DIM)[0]
    with pytest.raises(ShardWidthError, match=rf"have shape \(5, 2\), expected \(rows, {DIM}\)"):
        Run(root).embed(vectors[:, :2])
    vectors[3, 1] = np.nan
    with pytest.raises(NonFiniteRowError, match="row 3, feature 1"):
        Run(root).embed(vectors)


def test_what_is_not_there_is_named(root: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingArtifactError, match="nowhere: does not exist"):
        Run(tmp_path / "nowhere")
    with pytest.raises(MissingArtifactError, match="holds no finished run"):
        Run(tmp_path)
    with pytest.raises(ConfigError, match="wrote no column 'text'; there are id, embedding"):
        Run(root).to_arrow(["text"])
    shutil.copytree(root, tmp_path / "copy")
    shutil.rmtree(tmp_path / "copy/output")
    (tmp_path / "copy/metrics.json").unlink()
    unfinished = Run(tmp_path / "copy")
    with pytest.raises(MissingArtifactError, match="the stage `embed` is not finished"):
        unfinished.clusters()
    with pytest.raises(MissingArtifactError, match=r"has no metrics\.json yet"):
        _ = unfinished.metrics


def test_a_metric_run_has_an_embedding_and_no_clusters(tmp_path: Path) -> None:
    path = write_metric_run(tmp_path)
    run(load_config(path), LocalEngine(), SilentObserver())
    found = Run(tmp_path / "root")
    assert found.embedding().shape == (300, 6)
    with pytest.raises(ConfigError, match="objective dscl has no map"):
        found.map()
    rows = np.stack(pq.read_table(tmp_path / "data")["vector"].to_numpy())
    np.testing.assert_allclose(found.embed(rows)["embedding"], found.embedding(), rtol=1e-4, atol=1e-5)
    with pytest.raises(ConfigError, match="objective dscl has no clusters"):
        found.clusters()
    ax = found.plot(ax=Figure().subplots())
    np.testing.assert_array_equal(ax.collections[0].get_offsets(), found.embedding()[:, :2])
    assert len(ax.texts) == 20, "coloured by label"


def test_rows_are_drawn_by_their_first_two_eigenfunctions_or_by_their_map(root: Path, tmp_path: Path) -> None:
    ax = Figure().subplots()
    assert Run(root).plot(ax=ax) is ax
    np.testing.assert_array_equal(ax.collections[0].get_offsets(), Run(root).map())
    assert ax.get_xlabel() == "map, x"
    assert {text.get_text() for text in ax.texts} == {"0", "1", "2"}
    with pytest.raises(ConfigError, match="wrote no column 'colour'"):
        Run(root).plot("colour", ax=ax)
    shutil.copytree(root, tmp_path / "root")
    for file in (tmp_path / "root/output").glob("*.parquet"):
        table = pq.read_table(file)
        pq.write_table(table.drop_columns(["x", "y"]), file)
    without = Run(tmp_path / "root")
    without._output = lambda: (Run(tmp_path / "root")._root.child("output"), Run(root)._output()[1])  # type: ignore[method-assign]
    drawn = without.plot("leaf", ax=Figure().subplots())
    np.testing.assert_allclose(drawn.collections[0].get_offsets(), without.embedding()[:, 1:3])

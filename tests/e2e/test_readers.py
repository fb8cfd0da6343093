"""Whoever reads tables can be given the folder of an artifact, whatever else lies in it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
import yaml

from distspectral.config import load_config
from distspectral.datasets import write_vectors
from distspectral.orchestration.engine import LocalEngine
from distspectral.orchestration.observer import SilentObserver
from distspectral.orchestration.pipeline import run
from distspectral.storage.artifact.quarantine import FOLDER
from tests.datasets import blobs
from tests.runs import DIM, LEARNED, N_ROWS, write_metric_run, write_run

ARROW = ("vectors", "codes", "features", "neighbors", "graph", "reweight", "embedding")
N_BAD = 1


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folder of each artifact of a run that learns spaces, links its graph and sets a row aside; and a metric's."""
    folder = tmp_path_factory.mktemp("readers")
    config = write_run(folder, **LEARNED, graph={"n_neighbors": 8, "connect": "nearest"})
    vectors, labels = blobs(N_ROWS, DIM)
    vectors[60] = np.nan
    write_vectors(str(folder / "data"), vectors, labels=labels, sizes=(50, 30, 40))
    values = yaml.safe_load(config.read_text())
    values["data"]["on_bad_rows"] = "quarantine"
    config.write_text(yaml.safe_dump(values))
    metric = write_metric_run(tmp_path_factory.mktemp("metric"))
    for path in (config, metric):
        run(load_config(path), LocalEngine(), SilentObserver())
    again = folder / "again"
    run(load_config(config, [f"start_from={folder / 'root'}", f"root={again}"]), LocalEngine(), SilentObserver())
    places = {path.name: path for path in (folder / "root").iterdir()}
    return places | {"embedding": metric.parent / "root/embedding", "clusters": again / "clusters"}


def n_rows(artifact: str) -> int:
    return 300 if artifact == "embedding" else N_ROWS - N_BAD


def pandas_parquet(folder: str) -> int:
    return len(pytest.importorskip("pandas").read_parquet(folder))


def polars_parquet(folder: str) -> int:
    return int(pytest.importorskip("polars").scan_parquet(f"{folder}/*.parquet").collect().height)


def duckdb_parquet(folder: str) -> int:
    return int(pytest.importorskip("duckdb").sql(f"SELECT count(*) FROM '{folder}/*.parquet'").fetchall()[0][0])


def duckdb_folder(folder: str) -> int:
    return int(pytest.importorskip("duckdb").sql(f"SELECT count(*) FROM read_parquet('{folder}')").fetchall()[0][0])


def datasets_of(kind: str) -> Callable[[str], int]:
    def read(folder: str) -> int:
        datasets = pytest.importorskip("datasets")
        cache = f"{folder}/../cache"
        return len(datasets.load_dataset(kind, data_dir=folder, split="train", cache_dir=cache))

    return read


PARQUET: dict[str, Callable[[str], int]] = {
    "pandas": pandas_parquet,
    "polars": polars_parquet,
    "pyarrow.dataset": lambda folder: int(pa.dataset.dataset(folder).count_rows()),
    "pyarrow.parquet": lambda folder: len(pq.read_table(folder)),
    "duckdb": duckdb_parquet,
    "duckdb, the folder": duckdb_folder,
    "datasets": datasets_of("parquet"),
}


@pytest.mark.parametrize("reader", PARQUET)
def test_the_output_opens_by_its_folder(roots: dict[str, Path], reader: str) -> None:
    assert PARQUET[reader](str(roots["output"])) == n_rows("output")


def datasets_file(file: str) -> int:
    datasets = pytest.importorskip("datasets")
    return len(
        datasets.load_dataset("parquet", data_files=file, split="train", cache_dir=f"{Path(file).parent}/../cache")
    )


FILES = ("exemplars/exemplars.parquet", "tree/nodes.parquet", "tree/affinities.parquet", "clusters/lineage.parquet")
OF_FILES: dict[str, Callable[[str], int]] = {
    "pandas": pandas_parquet,
    "polars": lambda file: int(pytest.importorskip("polars").scan_parquet(file).collect().height),
    "pyarrow.dataset": PARQUET["pyarrow.dataset"],
    "duckdb": lambda file: int(pytest.importorskip("duckdb").sql(f"SELECT count(*) FROM '{file}'").fetchall()[0][0]),
    "datasets": datasets_file,
}


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("reader", OF_FILES)
def test_tables_of_clusters_open_by_their_names(roots: dict[str, Path], reader: str, file: str) -> None:
    artifact, _, name = file.partition("/")
    place = roots[artifact] / name
    n_rows = pq.read_metadata(place).num_rows
    assert OF_FILES[reader](str(place)) == n_rows > 0


def pandas_arrow(folder: str) -> int:
    pytest.importorskip("pandas")
    return len(pa.dataset.dataset(folder, format="ipc").to_table().to_pandas())


def polars_arrow(folder: str) -> int:
    return int(pytest.importorskip("polars").scan_ipc(f"{folder}/*.arrow").collect().height)


def duckdb_arrow(folder: str) -> int:
    connection = pytest.importorskip("duckdb").connect()
    table = pa.dataset.dataset(folder, format="ipc").to_table()
    half, single = pa.list_(pa.float16(), 8), pa.list_(pa.float32(), 8)  # DuckDB knows no half precision
    kinds = [(field.name, single if field.type == half else field.type) for field in table.schema]
    connection.register("rows", table.cast(pa.schema(kinds)))
    return int(connection.execute("SELECT count(*) FROM rows").fetchall()[0][0])


IPC: dict[str, Callable[[str], int]] = {
    "pandas": pandas_arrow,
    "polars": polars_arrow,
    "pyarrow.dataset": lambda folder: int(pa.dataset.dataset(folder, format="ipc").count_rows()),
    "duckdb": duckdb_arrow,
    "datasets": datasets_of("arrow"),
}


@pytest.mark.parametrize("artifact", ARROW)
@pytest.mark.parametrize("reader", IPC)
def test_arrow_artifacts_open_by_their_folders(roots: dict[str, Path], reader: str, artifact: str) -> None:
    assert IPC[reader](str(roots[artifact])) == n_rows(artifact)


@pytest.mark.parametrize("artifact", [*ARROW, "output"])
def test_nothing_but_rows_is_visible(roots: dict[str, Path], artifact: str) -> None:
    """By Spark's rule, too: names that begin with a dot are hidden, and all in folders of such names."""
    visible = [path for path in roots[artifact].iterdir() if not path.name.startswith(".")]
    hidden: Any = {path.name for path in roots[artifact].iterdir()} - {path.name for path in visible}
    assert {path.suffix for path in visible} == {".parquet" if artifact == "output" else ".arrow"}
    assert {".manifest.json", ".config.yaml"} <= hidden


@pytest.mark.parametrize("artifact", ["vectors", "output"])
def test_what_was_left_out_opens_by_its_folder(roots: dict[str, Path], artifact: str) -> None:
    assert pa.dataset.dataset(roots[artifact] / FOLDER, format="ipc").count_rows() == N_BAD

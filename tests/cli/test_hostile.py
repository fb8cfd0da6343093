"""What users type by mistake and what others give them: every command answers with one line that names it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner

from distspectral.cli.app import EXIT_REFUSED, app
from tests.datasets import npy_claiming
from tests.runs import write_run

METRIC = {"objective": "dscl", "dscl.n_components": 4}
CONFIGS = {
    "root is the data": ({"root": "DIR/data"}, "root: is .*inside data.path"),
    "root in the data": ({"root": "DIR/data/run"}, "root: is .*inside data.path"),
    "no such path": ({"data.path": "DIR/absent"}, "absent: does not exist"),
    "another scheme": ({"data.path": "foo://x"}, "foo://x: is no place"),
    "a web page": ({"data.path": "https://h/x.parquet"}, "download what lies elsewhere"),
    "no account": ({"data.path": "abfs://c/x"}, "abfs://c/x: is no place"),
    "root on the web": ({"root": "http://h/x"}, "http://h/x: is no place"),
    "root of nobody": ({"root": "~nobody-at-all/x"}, "there is no user ~nobody-at-all"),
    "start elsewhere": ({"start_from": "foo://x"}, "foo://x: is no place"),
    "start nowhere": ({"start_from": "DIR/absent"}, "start_from: .*absent holds no run"),
    "a feature twice": ({"data.column": ["x0", "x1", "x0"]}, "data.column: names 'x0' twice"),
    "cache elsewhere": ({"storage.cache_dir": "s3://b/x"}, "storage.cache_dir: is a URI"),
    "seed of 33 bits": ({"seed": 2**32}, "seed: expected at most 2147483646"),
    "negative seed": ({"seed": -1}, "seed: expected at least 0"),
    "fraction for a number": ({"seed": 0.5}, "seed: expected a whole number"),
    "wide layer": ({"network.hidden": [10**9]}, "network.hidden: makes a layer of 1,000,000,000 units"),
    "large batch": ({"train.batch_size": 10**11}, "train.batch_size: is 100,000,000,000"),
    "neighbours above rows": ({"graph.n_neighbors": 500}, "graph.n_neighbors = 500"),
    "clusters above rows": ({"cluster.n_clusters": 500}, "cluster.n_clusters: is 500"),
    "functions above rows": ({"spectral.n_components": 500}, "lower spectral.n_components"),
    "text for a section": ({"network": "wide"}, "network: expected keys and values"),
    "infinite rate": ({"train.learning_rate": float("inf")}, "train.learning_rate: expected a finite number"),
    "no module": (
        {"objective": "dscl", "dscl.n_components": 4, "network.trunk": "nowhere:x"},
        "there is no module 'nowhere'",
    ),
    "relative module": (
        {"objective": "dscl", "dscl.n_components": 4, "network.trunk": "..x:y"},
        "expected module:callable",
    ),
    "no column": ({"data.column": "vectr"}, "did you mean 'vector'"),
}


def assert_told(text: str, message: str) -> None:
    assert text.count("error:") == 1
    assert re.search(message, text), text


@pytest.mark.parametrize("command", ["validate", "run"])
@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_that_cannot_run_is_refused_before_anything_starts(tmp_path: Path, command: str, name: str) -> None:
    changes, message = CONFIGS[name]
    path = write_run(tmp_path)
    values = yaml.safe_load(path.read_text())
    for key, value in changes.items():
        *sections, last = key.split(".")
        section = values
        for one in sections:
            section = section.setdefault(one, {})
        section[last] = value.replace("DIR", str(tmp_path)) if isinstance(value, str) else value
    path.write_text(yaml.safe_dump(values))
    before = sorted(tmp_path.rglob("*"))
    refused = CliRunner().invoke(app, [command, str(path), *(["--local"] if command == "run" else [])])
    assert refused.exit_code == EXIT_REFUSED, refused.output
    assert "Traceback" not in refused.output
    assert_told(refused.stderr, message)
    assert sorted(tmp_path.rglob("*")) == before


FILES = {
    "no rows at all": "holds no rows, nor does any other shard",
    "an empty file": "is an empty file",
    "a column twice": "has 2 columns 'vector'",
    "a delta table": "is a Delta table",
    "a bad first row": "row 0 of column 'vector' has width 2, expected 5",
    "a header of truths": "the header is damaged: shape",
}


@pytest.mark.parametrize("name", FILES)
def test_files_that_cannot_be_read_are_told_by_name(tmp_path: Path, name: str) -> None:
    path = write_run(tmp_path)
    folder = tmp_path / "data"
    match name:
        case "no rows at all":
            shutil.rmtree(folder)
            folder.mkdir()
            pq.write_table(pa.table({"vector": pa.array([], pa.null())}), folder / "a.parquet")
        case "an empty file":
            (folder / "z.parquet").touch()
        case "a column twice":
            table = pq.read_table(folder / "part-00000.parquet")
            pq.write_table(table.append_column("vector", table["vector"]), folder / "z.parquet")
        case "a delta table":
            (folder / "_delta_log").mkdir()
        case "a bad first row":
            table = pq.read_table(folder / "part-00000.parquet")
            rows = [[1.0, 2.0], *table["vector"].to_pylist()[1:]]
            vectors = pa.array(rows, pa.list_(pa.float32()))
            table = table.set_column(table.schema.get_field_index("vector"), "vector", vectors)
            pq.write_table(table, folder / "part-00000.parquet")
        case "a header of truths":
            (folder / "z.npy").write_bytes(npy_claiming("(True, 5)", np.zeros((1, 5), "<f4")))
            path.write_text(path.read_text().replace("  id_column: id\n", "").replace("  label_column: label\n", ""))
    refused = CliRunner().invoke(app, ["run", str(path), "--local"])
    assert refused.exit_code == EXIT_REFUSED, refused.output
    assert_told(refused.stderr, FILES[name])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("inspect", "foo://x"), "foo://x: is no place"),
        (("serve", "foo://x"), "foo://x: is no place"),
        (("embed", "CONFIG", "--local", "DATA", "--output", "DATA/out"), "inside the new rows' "),
        (("plan", "CONFIG", "--prices", "PRICES"), "node_hour: expected keys and values"),
        (("validate", "CONFIG", "--set", "train=[1]"), "train: expected keys and values"),
        (("validate", "DATA"), "cannot be read"),
    ],
)
def test_other_arguments_are_refused_by_name(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    path = write_run(tmp_path)
    (tmp_path / "prices").write_text("node_hour: 3\n")
    places = {"CONFIG": path, "PRICES": tmp_path / "prices"}
    command = [str(places.get(one, one)).replace("DATA", str(tmp_path / "data")) for one in arguments]
    refused = CliRunner().invoke(app, command, env={"COLUMNS": "300"})
    assert refused.exit_code == EXIT_REFUSED, refused.output
    assert_told(refused.stderr, message)

"""New rows by the model of a finished run, of which nothing but the run itself is needed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from distspectral.cli.app import EXIT_REFUSED
from tests.cli.invoking import invoke
from tests.datasets import as_lists, blobs
from tests.runs import DIM


@pytest.fixture
def alone(finished_run: Path, tmp_path: Path) -> Path:
    """The directory of a finished run, without its config, the rows trained on and the graph."""
    root = tmp_path / "alone"
    shutil.copytree(finished_run.parent / "root", root)
    for name in ("neighbors", "graph", "training", "output"):
        shutil.rmtree(root / name)
    values = yaml.safe_load((root / "config.yaml").read_text())
    values["data"]["path"] = str(tmp_path / "nowhere")
    (root / "config.yaml").write_text(yaml.safe_dump(values))
    return root


def write_new(folder: Path) -> Path:
    """Write rows whose columns are called otherwise than those trained on, and have no labels."""
    folder.mkdir()
    vectors, _ = blobs(90, DIM, seed=1)
    columns = {"emb": as_lists(vectors), "url": [f"u{row}" for row in range(90)], "text": ["some"] * 90}
    for name, (start, stop) in {"a": (0, 50), "b": (50, 90)}.items():
        pq.write_table(pa.table(columns).slice(start, stop - start), folder / f"{name}.parquet")
    return folder


NAMES = ("--column", "emb", "--id-column", "url")


def test_a_run_alone_embeds_rows_of_other_column_names(alone: Path, tmp_path: Path) -> None:
    new = write_new(tmp_path / "new")
    result = invoke("embed", alone, new, *NAMES, "--carry", "text", "--local", "--json")
    assert result.exit_code == 0, result.stderr
    manifest = json.loads(result.stdout)
    assert manifest["metrics"]["drift"]["n_rows"] == 90
    assert "agreement" not in manifest["metrics"]
    (output,) = (alone / "embedded").iterdir()
    assert output.name.startswith("new-")
    rows = pq.read_table(output)
    columns = ["embedding", "cluster", "distance", "margin", "leaf", "is_outlier", "x", "y"]
    assert rows.column_names == ["id", *columns, "text"]
    assert rows["id"].to_pylist()[::89] == ["u0", "u89"]


def test_a_run_alone_embeds_files_of_vectors_only(alone: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "new.npy", blobs(90, DIM, seed=1)[0])
    result = invoke("embed", alone, tmp_path / "new.npy", "--id-column", "", "--local", "--output", tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    assert pq.read_table(tmp_path / "out")["id"].to_pylist() == list(range(90))


def test_columns_of_the_run_that_a_file_of_vectors_lacks_are_said_to_be_overruled(alone: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "new.npy", blobs(90, DIM, seed=1)[0])
    values = yaml.safe_load((alone / "config.yaml").read_text())
    values["data"] |= {"column": "x*", "id_column": "id"}
    (alone / "config.yaml").write_text(yaml.safe_dump(values))
    command = ("embed", alone, tmp_path / "new.npy", "--local", "--output", tmp_path / "out")
    assert "vectors only; give --id-column ''\n" in invoke(*command).stderr
    command = (*command, "--id-column", "")
    assert "vectors only; give --column vector\n" in invoke(*command).stderr
    assert invoke(*command, "--column", "vector").exit_code == 0


def test_the_same_command_goes_on_with_shards_that_are_missing(alone: Path, tmp_path: Path) -> None:
    new = write_new(tmp_path / "new")
    command = ("embed", alone, new, *NAMES, "--local", "--json")
    assert invoke(*command, "--shard-range", "0:1").exit_code == 0
    (output,) = (alone / "embedded").iterdir()
    before = (output / "part-00000.parquet").stat().st_mtime_ns
    done = json.loads(invoke(*command).stdout)
    assert done["metrics"]["embedded_shards"] == 1
    assert (output / "part-00000.parquet").stat().st_mtime_ns == before
    assert "up to date" in invoke(*command[:-1]).stderr


def test_what_new_rows_lack_is_named_by_the_option(alone: Path, tmp_path: Path) -> None:
    new = write_new(tmp_path / "new")
    assert "has no column 'vector'; did you mean 'emb'? It has emb, url, text; set --column" in (
        " ".join(invoke("embed", alone, new, "--local").stderr.split())
    )
    assert "set --carry" in invoke("embed", alone, new, *NAMES, "--carry", "texts", "--local").stderr
    assert "nothing: does not exist" in invoke("embed", tmp_path / "nothing", new).stderr
    assert "new: is neither a finished run" in invoke("embed", new, new).stderr
    assert "is no YAML file" in invoke("embed", alone).stderr


def test_without_the_vectors_trained_on_there_is_no_drift(alone: Path, tmp_path: Path) -> None:
    for path in (alone / "vectors").glob("*.arrow"):
        path.unlink()
    result = invoke("embed", alone, write_new(tmp_path / "new"), *NAMES, "--local", "--json")
    assert result.exit_code == 0, result.stderr
    assert "drift" not in json.loads(result.stdout)["metrics"]


def test_a_model_of_another_packing_is_refused(alone: Path, tmp_path: Path) -> None:
    path = alone / "vectors/.manifest.json"
    path.write_text(path.read_text().replace(json.loads(path.read_text())["fingerprint"], "0" * 16))
    result = invoke("embed", alone, write_new(tmp_path / "new"), *NAMES, "--local")
    assert "was made from another" in result.stderr


def test_a_run_alone_reports_from_wherever_it_was_moved_to(
    finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As its page proposes: its directory is named, from a place at which its config's relative paths mean nothing."""
    root = tmp_path / "moved"
    shutil.copytree(finished_run.parent / "root", root)
    values = yaml.safe_load((root / "config.yaml").read_text())
    values["root"], values["data"]["path"] = "runs/gone", "gone"
    (root / "config.yaml").write_text(yaml.safe_dump(values))
    before = json.loads((root / "metrics.json").read_text())
    (root / "report.html").unlink()
    monkeypatch.chdir(tmp_path)
    result = invoke("report", root, "--figures", "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout) == json.loads((root / "metrics.json").read_text()) == before
    assert f"distspectral report {root} --figures" in (root / "report.html").read_text()
    assert (root / "figures/map.svg").exists()
    assert invoke("report", root, "--set", "train.max_steps=41").exit_code == EXIT_REFUSED


def test_a_column_that_is_none_is_told_with_the_nearest(alone: Path, tmp_path: Path) -> None:
    result = invoke("embed", alone, write_new(tmp_path / "new"), *NAMES, "--columns", "clutser", "--local")
    assert result.exit_code == EXIT_REFUSED
    assert "--columns: 'clutser' is none of" in result.stderr
    assert "did you mean 'cluster'?" in result.stderr

"""``distspectral dedup`` and ``sample`` on a finished run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from distspectral.cli.app import EXIT_REFUSED
from distspectral.config.ray import RayConfig
from distspectral.orchestration.engine import LocalEngine
from distspectral.stages.stage import Stage
from tests.cli.invoking import invoke
from tests.runs import N_ROWS, write_run


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = write_run(tmp_path_factory.mktemp("cli"), graph={"n_neighbors": 8, "metric": "l2"})
    result = invoke("run", path, "--local", "-q")
    assert result.exit_code == 0, result.stderr
    return path.parent / "root"


def test_dedup_shows_thresholds_first_and_then_writes(root: Path, tmp_path: Path) -> None:
    shown = invoke("dedup", root)
    assert "Euclidean distance" in shown.stdout
    assert "Nothing was written" in shown.stdout
    assert not (root / "dedup").exists()
    records = json.loads(invoke("dedup", root, "--json").stdout)["thresholds"]
    chosen = records[-1]
    result = invoke("dedup", root, "--threshold", chosen["threshold"])
    n_dropped = round(chosen["dropped_share"] * N_ROWS)
    assert f"{n_dropped} ({n_dropped / N_ROWS:.2%})" in result.stdout
    tables = [pq.read_table(path) for path in sorted((root / "dedup").glob("*.parquet"))]
    kept = pa.concat_tables(tables)["keep"].to_numpy()
    assert (len(kept), kept.sum()) == (N_ROWS, N_ROWS - n_dropped)
    out = tmp_path / "elsewhere"
    told = json.loads(invoke("dedup", root, "--threshold", 0, "--metric", "cosine", "--out", out, "--json").stdout)
    assert told["properties"]["metric"] == "cosine"
    assert told["metrics"]["dropped_rows"] == 0
    refused = invoke("dedup", root, "--metric", "dot")
    assert refused.exit_code == EXIT_REFUSED
    assert "choose from l2, cosine, centered_cosine" in refused.stderr


def test_dedup_hands_its_shards_to_the_cluster_of_the_run(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[str] = []

    class Cluster(LocalEngine):
        def __init__(self, config: RayConfig) -> None:
            assert config.address == "head:6379"

        def start(self, stages: Sequence[Stage], n_values: float = 0) -> None:
            heard.extend(stage.name for stage in stages)

        def close(self) -> None:
            heard.append("left")

    monkeypatch.setattr("distspectral.orchestration.engine.RayEngine", Cluster)
    shutil.copytree(root, tmp_path / "run")
    config = tmp_path / "run/config.yaml"
    told = yaml.safe_load(config.read_text())
    told["ray"]["address"] = "head:6379"
    config.write_text(yaml.safe_dump(told))
    for _ in range(2):  # the second time there is nothing to do
        assert invoke("dedup", tmp_path / "run", "--threshold", 0).exit_code == 0
    assert heard == ["neighbors", "left", "left"]
    assert invoke("dedup", tmp_path / "run", "--threshold", 0.1, "--local").exit_code == 0
    assert len(heard) == 3


def test_sample_writes_a_file_and_says_how_even_it_is(root: Path, tmp_path: Path) -> None:
    result = invoke("sample", root, "--rows", 30, "--balance", "clusters")
    assert "30 of 120" in result.stdout
    assert str(root / "sample.parquet") in result.stdout
    assert np.bincount(pq.read_table(root / "sample.parquet")["cluster"].to_numpy()).tolist() == [10, 10, 10]
    told = invoke("sample", root, "--rows", 200, "--balance", "none", "--replace", "--out", tmp_path / "s", "--json")
    facts = json.loads(told.stdout)
    assert (facts["rows"], facts["path"]) == (200, str(tmp_path / "s"))
    assert pq.read_table(tmp_path / "s").num_rows == 200
    assert 0.9 < facts["evenness"] <= 1
    for arguments, words in ((("--rows", 5, "--balance", "x"), "choose from tree"), (("--rows", 500), "")):
        refused = invoke("sample", root, *arguments)
        assert refused.exit_code == EXIT_REFUSED
        assert words in refused.stderr


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("data/part-00001.parquet", "would be read as rows of"),
        ("data/new.parquet", "would be read as rows of"),
        ("root/output/part-00000.parquet", "lies among the files of an artifact"),
        ("data", "is a folder; name a file"),
    ],
)
def test_what_is_written_of_a_run_overwrites_neither_its_rows_nor_its_files(root: Path, place: str, words: str) -> None:
    path = root.parent / place
    before = path.read_bytes() if path.is_file() else None
    for command in (("sample", root, "--rows", 5, "--out", path), ("graph", "export", root, path)):
        refused = invoke(*command)
        assert refused.exit_code == EXIT_REFUSED
        assert words in refused.stderr
        assert command[0] == "graph" or "--out: " in refused.stderr
    assert (path.read_bytes() if path.is_file() else None) == before


def test_a_folder_of_two_files_is_refused_among_the_rows(root: Path) -> None:
    refused = invoke("graph", "export", root, root.parent / "data", "--to", "faiss")
    assert refused.exit_code == EXIT_REFUSED
    assert "ids.npy would be read as rows of" in refused.stderr
    assert not list((root.parent / "data").glob("*.npy"))

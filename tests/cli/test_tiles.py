"""``distspectral tiles`` and ``view --atlas`` on a finished run."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

from distspectral.cli.app import EXIT_REFUSED
from distspectral.stages.finished_run import of_earlier_trees
from distspectral.storage.artifact.directory import MANIFEST, Artifact
from tests.cli.invoking import invoke
from tests.runs import N_ROWS, write_run


@pytest.fixture
def root(finished_run: Path, tmp_path: Path) -> Path:
    """A copy of a run, in a folder whose name tries to be something else."""
    place = tmp_path / "$(touch pwned) [red]"
    shutil.copytree(finished_run.parent / "root", place)
    return place


def test_tiles_are_written_and_told(root: Path, tmp_path: Path) -> None:
    told = invoke("tiles", root)
    assert told.exit_code == 0, told.output
    assert re.search(r"clusters by layer: label_0: \d+, label_1: 3", told.stdout)
    assert f"written to {root}/tiles" in told.stdout
    assert pyarrow.dataset.dataset(str(root / "tiles")).count_rows() == N_ROWS
    out = tmp_path / "elsewhere"
    again = json.loads(invoke("tiles", root, "--layers", "2,9", "--out", out, "--json").stdout)
    assert again["properties"]["layers"] == [9, 2]
    assert again["properties"]["levels"][0]["rows"] == N_ROWS


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--layers", "2,many"), "expected numbers of clusters such as 100,20,4"),
        (("--layers", "999"), "999 clusters were asked of a tree of "),
        (("--carry", "title"), "no carried column 'title'; data.carry takes columns over"),
        (("--names", "none.json"), "cannot be read"),
    ],
)
def test_wishes_that_cannot_be_met_are_refused_before_any_work(
    root: Path, options: tuple[str, str], message: str
) -> None:
    refused = invoke("tiles", root, *options)
    assert refused.exit_code == EXIT_REFUSED
    assert message in refused.stderr
    assert not (root / "tiles").exists()


@pytest.fixture
def atlas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program of the atlas' name, which writes down its words."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "embedding-atlas"
    program.write_text(f'#!/bin/sh\nfor word; do echo "$word"; done > "{tmp_path}/words"\nexit 3\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return tmp_path / "words"


def test_the_atlas_gets_the_coarse_levels_the_places_and_the_labels(
    root: Path, atlas: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distspectral.tiles.plan.TILE_ROWS", 10)
    levels = json.loads(invoke("tiles", root, "--json").stdout)["properties"]["levels"]
    assert len(levels) > 2
    served = invoke("view", root, "--atlas")
    assert served.exit_code == 3, "its own"
    *files, x, x_column, y, y_column, labels, file = atlas.read_text().splitlines()
    assert (x, x_column, y, y_column, labels) == ("--x", "x", "--y", "y", "--labels")
    assert pyarrow.dataset.dataset(files).count_rows() == N_ROWS
    records = json.loads(Path(file).read_text())
    assert {"x", "y", "text", "level", "priority"} <= records[0].keys()
    n_rows = levels[0]["rows"] + levels[1]["rows"]
    assert (
        f"{n_rows} of {N_ROWS} rows: 2 of {len(levels)} levels"
        in invoke("view", root, "--atlas", "--rows", n_rows).stdout
    )
    assert pyarrow.dataset.dataset(atlas.read_text().splitlines()[:-6]).count_rows() == n_rows
    invoke("view", root, "--atlas", "--rows", 1)
    assert pyarrow.dataset.dataset(atlas.read_text().splitlines()[:-6]).count_rows() == levels[0]["rows"]
    assert not list(Path.cwd().glob("pwned"))


def test_what_was_made_of_an_earlier_tree_is_told_and_not_served(root: Path, atlas: Path) -> None:
    shutil.rmtree(root / "cuts", ignore_errors=True)  # of other tests
    invoke("tiles", root)
    invoke("recut", root, "--n-clusters", 2)
    assert of_earlier_trees(Artifact(str(root))) == []
    tree = root / "tree" / MANIFEST
    made = json.loads(tree.read_text())
    tree.write_text(json.dumps(made | {"fingerprint": "0" * len(made["fingerprint"])}))
    assert of_earlier_trees(Artifact(str(root))) == ["cuts/n-clusters-2", "tiles"]
    cut = root / "cuts/n-clusters-2" / MANIFEST
    cut.write_text(json.dumps(json.loads(cut.read_text()) | {"format_version": 1}))
    assert of_earlier_trees(Artifact(str(root))) == ["cuts/n-clusters-2", "tiles"], "whatever format they have"
    refused = invoke("view", root, "--atlas")
    assert refused.exit_code == EXIT_REFUSED
    assert "was made of an earlier tree of this run" in refused.stderr
    assert not atlas.exists()


def test_the_atlas_searches_the_first_carried_text(tmp_path: Path, atlas: Path) -> None:
    config = write_run(
        tmp_path / "texts", data={"path": str(tmp_path / "texts/data"), "carry": ["label", "$(touch pwned)"]}
    )
    for shard in (tmp_path / "texts/data").iterdir():
        table = pq.read_table(shard)
        pq.write_table(table.append_column("$(touch pwned)", pa.array(["text"] * len(table))), shard)
    assert invoke("run", config, "--local", "--quiet").exit_code == 0
    assert invoke("tiles", tmp_path / "texts/root", "--carry", "all").exit_code == 0
    invoke("view", tmp_path / "texts/root", "--atlas")
    assert atlas.read_text().splitlines()[-2:] == ["--text", "$(touch pwned)"]


def test_without_tiles_or_atlas_the_remedy_is_named(
    root: Path, atlas: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    refused = invoke("view", root, "--atlas")
    assert refused.exit_code == EXIT_REFUSED
    assert "has no tiles; `distspectral tiles" in refused.stderr
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    assert "pip install embedding-atlas" in invoke("view", root, "--atlas").stderr
    assert not atlas.exists()

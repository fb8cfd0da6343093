"""``distspectral recut``: several cuts of one run side by side."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import Result

from distspectral.cli.app import EXIT_REFUSED
from distspectral.stages.recut import CLUSTERS, TABLE
from distspectral.storage.artifact.directory import MANIFEST
from tests.cli.invoking import invoke
from tests.runs import N_ROWS


def recut(*arguments: object) -> Result:
    return invoke("recut", *arguments, columns=160)


@pytest.fixture
def root(finished_run: Path) -> Path:
    return finished_run.parent / "root"


def labels(root: Path, name: str) -> Any:
    """Return the cluster of every row, by a join."""
    cut = pq.read_table(root / "cuts" / name / CLUSTERS).to_pandas()
    rows = pq.read_table(sorted((root / "output").glob("part-*.parquet"))).to_pandas()
    return rows.merge(cut, on="leaf", suffixes=("_of_run", ""))


def test_cuts_stand_side_by_side_and_are_joins(root: Path) -> None:
    pytest.importorskip("pandas")
    seven, two = recut(root, "--n-clusters", 7), recut(root, "--n-clusters", 2, "--name", "halves")
    assert (seven.exit_code, two.exit_code) == (0, 0), seven.output + two.output
    assert "cluster 6" in seven.stdout
    assert "conductance" in seven.stdout
    finer, coarser = labels(root, "n-clusters-7"), labels(root, "halves")
    assert len(finer) == len(coarser) == N_ROWS
    assert finer["cluster"].nunique() == 7
    assert (finer.groupby("cluster")["cluster_of_run"].nunique() == 1).all()
    assert (coarser.groupby("cluster_of_run")["cluster"].nunique() == 1).all()
    table = pq.read_table(root / "cuts/halves" / TABLE).to_pandas()
    np.testing.assert_array_equal(table["rows"], np.bincount(coarser["cluster"]))


def test_the_runs_own_number_gives_its_own_clusters(root: Path) -> None:
    pytest.importorskip("pandas")
    assert recut(root, "--n-clusters", 3).exit_code == 0
    rows = labels(root, "n-clusters-3")
    assert (rows["cluster"] == rows["cluster_of_run"]).all()


@pytest.mark.parametrize(("option", "value"), [("--threshold", 0.5), ("--min-rows", 20)])
def test_a_tree_is_cut_by_affinity_or_by_rows(root: Path, option: str, value: float) -> None:
    result = recut(root, option, value, "--json")
    found = json.loads(result.stdout)
    assert Path(found["cut"]).name == f"{option[2:]}-{value}"
    assert sum(one["rows"] for one in found["clusters"]) == N_ROWS
    if option == "--min-rows":
        assert min(one["rows"] for one in found["clusters"]) >= value


def test_the_same_cut_is_left_as_it_is_and_another_is_not_replaced(root: Path) -> None:
    assert recut(root, "--n-clusters", 4, "--name", "mine").exit_code == 0
    written = (root / "cuts/mine" / TABLE).stat().st_mtime_ns
    assert recut(root, "--n-clusters", 4, "--name", "mine").exit_code == 0
    assert (root / "cuts/mine" / TABLE).stat().st_mtime_ns == written
    result = recut(root, "--n-clusters", 5, "--name", "mine")
    assert result.exit_code == EXIT_REFUSED
    assert "holds another cut, into 4 clusters" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "give one of --n-clusters, --threshold and --min-rows"),
        (("--n-clusters", 3, "--min-rows", 9), "give one of"),
        (("--n-clusters", 0), "--n-clusters: is 0, expected at least 1"),
        (("--threshold", "nan"), "--threshold: is nan, expected at least 0"),
        (("--n-clusters", 9999), r"9999 clusters were asked of a tree of"),
        (("--n-clusters", 3, "--name", "../up"), "--name: is '../up'"),
    ],
)
def test_what_cannot_be_cut_is_refused(root: Path, arguments: tuple[object, ...], words: str) -> None:
    result = recut(root, *arguments)
    assert result.exit_code == EXIT_REFUSED
    assert words in " ".join(result.stderr.split())


def test_where_no_tree_stands_nothing_is_cut(tmp_path: Path) -> None:
    result = recut(tmp_path, "--n-clusters", 3)
    assert result.exit_code == EXIT_REFUSED
    assert "holds no finished run" in result.stderr
    (tmp_path / "embedding").mkdir()
    (tmp_path / "embedding" / MANIFEST).write_text("{}")
    assert "a run of objective dscl has no tree" in recut(tmp_path, "--n-clusters", 3).stderr


def test_an_output_of_another_tree_is_not_cut(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root, tmp_path / "own")
    manifest = tmp_path / "own/tree" / MANIFEST
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"fingerprint": "0" * 16}))
    result = recut(tmp_path / "own", "--n-clusters", 3)
    assert result.exit_code == EXIT_REFUSED
    assert "own/output: was made from another" in result.stderr

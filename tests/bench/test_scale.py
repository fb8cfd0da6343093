from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from distspectral.bench import end_to_end, timed_run
from distspectral.bench.end_to_end import driver_growth, exponents
from distspectral.cli.app import app
from distspectral.datasets import Mixture
from distspectral.report.formats import duration
from tests.runs import CHAIN

BRIEF = (
    "network.hidden=[16]",
    "representation=input",
    "affinity.space=euclidean",
    "train.max_steps=40",
    "train.batch_size=256",
    "cluster.n_clusters=3",
    "cluster.restarts=1",
)
SETS = [f"--set={one}" for one in BRIEF]


def run_here(command, **options):
    """Stand in for a process of its own: start what it would start."""
    assert command[1] == "-m"
    if command[2] == "distspectral":
        result = CliRunner().invoke(app, command[3:])
        return subprocess.CompletedProcess(command, result.exit_code, result.stdout, result.stderr)
    assert command[2] == "distspectral.bench.timed_run"
    Path(command[4]).write_text(json.dumps(timed_run.main(command[3])))
    return subprocess.CompletedProcess(command, 0, "", "")


def test_a_plan_is_compared_stage_by_stage(monkeypatch):
    monkeypatch.setattr(subprocess, "run", run_here)
    result = CliRunner().invoke(app, ["bench", "plan", "--rows", "300", "--dim", "8", "--json", *SETS])
    assert result.exit_code == 0, result.stderr
    [size] = json.loads(result.stdout)["sizes"]
    assert tuple(size["stages"]) == CHAIN
    for one in [*size["stages"].values(), size["all"]]:
        assert one["error"] == pytest.approx(one["predicted"] / max(one["seconds"], 1e-3) - 1)
        assert one["core_error"] == pytest.approx(one["predicted"] / max(one["core_seconds"], 1e-3) - 1)
    assert size["all"]["seconds"] == pytest.approx(sum(one["seconds"] for one in size["stages"].values()))
    assert size["kept_bytes"]["predicted"] == pytest.approx(size["kept_bytes"]["found"], rel=0.1)


def test_sizes_are_run_one_after_the_other_and_kept(monkeypatch, tmp_path):
    monkeypatch.setattr(subprocess, "run", run_here)
    sizes = ["--rows", "600", "--rows", "300", "--dim", "8", "--intrinsic-dim", "3"]
    arguments = ["bench", "end-to-end", *sizes, "--local", "--root", str(tmp_path), *SETS]
    result = CliRunner().invoke(app, [*arguments, "--json"])
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert [one["rows"] for one in found["sizes"]] == [300, 600]
    assert found["sizes"][0]["exact"]["n_rows"] == 300
    assert "exact" not in found["sizes"][1]
    assert set(found["exponents"]) == set(found["sizes"][0]["seconds"])
    assert set(found["driver_growth"]) == {"core_seconds", "bytes"}
    assert all(set(size["driver"]) == set(size["seconds"]) for size in found["sizes"])
    again = CliRunner().invoke(app, arguments, env={"COLUMNS": "150"})
    assert "Spectrum at 300 rows" in again.stdout
    seconds = found["sizes"][1]["seconds"]["graph"]
    assert duration(seconds) in again.stdout  # of when it was made


def test_the_recall_is_that_of_the_search(monkeypatch, tmp_path):
    metrics = {
        "n_rows": 300,
        "seconds": {"graph": 1.0},
        "busy": {},
        "peak_rss_bytes": 1,
        "driver": {"graph": {"core_seconds": 1.0, "bytes": 1}},
        "neighbors": {"reached_recall": 0.9},
        "graph": {"components": 2},
        "train": {"edges_per_second": 1.0, "steps": 1},
        "calibrate": {"inputs": ["vector"]},
    }
    monkeypatch.setattr(end_to_end, "_run", lambda path, local: metrics)
    monkeypatch.setattr(end_to_end, "EXACT_ROWS", 0)
    (size,) = end_to_end.compare_sizes([300], Mixture(4, intrinsic_dim=2, n_clusters=3), [], str(tmp_path), True)[
        "sizes"
    ]
    assert (size["recall"], size["components"]) == (0.9, 2)


def test_a_run_that_fails_is_told(monkeypatch, tmp_path):
    failed = subprocess.CompletedProcess([], 3, "", "out of cheese")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    result = CliRunner().invoke(app, ["bench", "end-to-end", "--rows", "300", "--root", str(tmp_path)])
    assert result.exit_code == 2
    assert "ended with 3" in result.stderr


def test_exponents_are_slopes_between_logarithms():
    sizes = [{"rows": n, "seconds": {"graph": 2e-3 * n**1.5, "train": 7.0}} for n in (100, 1000, 10_000)]
    assert exponents(sizes) == pytest.approx({"graph": 1.5, "train": 0.0})
    assert exponents(sizes[:1]) == {}
    sizes[0]["seconds"]["polish"] = 1.0  # of few rows
    assert exponents(sizes) == pytest.approx({"graph": 1.5, "train": 0.0})


def test_growth_of_the_driver_is_that_of_one_more_row():
    sizes = [
        {"rows": 100, "driver_core_seconds": 1.0, "driver_bytes": 1000.0},
        {"rows": 300, "driver_core_seconds": 3.0, "driver_bytes": 1100.0},
    ]
    assert driver_growth(sizes) == {"core_seconds": 0.01, "bytes": 0.5}
    assert driver_growth(sizes[:1]) == {}

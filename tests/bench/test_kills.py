"""Clusters that lose processes and nodes, each in a process of its own: the tests' process is part of a Ray already."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import psutil
import pytest

PATIENCE_S = 800
"""Ray takes most of it to start workers and nodes on a busy machine."""
SOON_MISSED = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_failure_threshold": "4",
}
"""A dead node is noticed after two seconds instead of twenty; a live one has ten to answer, as ever."""
KILLS = int(os.environ.get("CHAOS_KILLS", "3"))

BRIEF = ("--steps", 800, "--rows", 3000, "--shards", 10)

pytestmark = [
    pytest.mark.ray,
    pytest.mark.clusters,
    pytest.mark.slow,
    pytest.mark.flaky(reruns=1),
    pytest.mark.timeout(PATIENCE_S + 60),
]


def bench(name: str, folder: Path, *options: object) -> dict[str, Any]:
    """Return what ``distspectral bench`` prints as JSON; its temporary files are apart from those of other runs."""
    scratch = folder / "tmp"
    scratch.mkdir()
    environment = os.environ | SOON_MISSED | {"TMPDIR": str(scratch), "RAY_TMPDIR": tempfile.gettempdir()}
    command = [sys.executable, "-m", "distspectral", "bench", name, "--json", *map(str, options)]
    command += ["--root", str(folder / "runs")]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, env=environment, **pipes)
    try:
        stdout, stderr = process.communicate(timeout=PATIENCE_S)
    finally:
        if process.poll() is None:  # its cluster must not outlive it
            for child in psutil.Process(process.pid).children(recursive=True):
                child.kill()
            process.kill()
    print(stderr)
    assert process.returncode == 0, stderr[-3000:]
    result: dict[str, Any] = json.loads(stdout)
    return result


def test_a_lost_node_shrinks_the_group_and_a_new_one_grows_it(tmp_path: Path) -> None:
    result = bench("elastic", tmp_path, "--workers", 2, "--rows", 2000)
    windows = result["windows"]
    groups = [one["workers"] for one in windows]
    assert [group for group, _ in itertools.groupby(groups)] == [2, 1, 2]
    losses = {windows[0]["step"]: windows[0]["loss"]}
    for before, after in itertools.pairwise(windows):
        expected = losses.setdefault(after["step"], before["loss"])  # steps that are taken again had a loss
        assert after["loss"] < expected + 1, "the loss goes on from where it was"
        losses[after["step"]] = after["loss"]
        if after["workers"] == before["workers"]:
            assert after["step"] - before["step"] == 50
        else:
            assert after["step"] - before["step"] <= 50, "from a checkpoint, so no step is left out"
    assert len(result["seconds_lost"]) == len(result["steps_lost"]) == 2
    assert all(0 <= steps <= 150 for steps in result["steps_lost"]), "to the last whole checkpoint, one in 100 steps"


def test_a_run_whose_processes_are_killed_gives_what_the_run_left_alone_gives(tmp_path: Path) -> None:
    result = bench("chaos", tmp_path, "--kills", KILLS, *BRIEF)
    assert sum(result["kills"].values()) == len(result["timeline"]) >= KILLS
    assert result["exactly_once"]
    assert result["same_bits"] == dict.fromkeys(("vectors", "neighbors", "graph", "model", "clusters", "output"), True)
    assert result["label_agreement"] > 0.8, "trained from other checkpoints, with other numbers of workers"
    for one in result["ritz_sum"]["killed"]:
        assert one == pytest.approx(result["ritz_sum"]["calm"], rel=0.1)
    assert not any(run["temporary_files"] for run in result["runs"])

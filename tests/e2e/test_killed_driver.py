"""The driver is killed with SIGKILL, in the middle of training and of embedding; whoever comes next finishes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from distspectral.cli.app import app
from tests.runs import N_ROWS, write_run

PATIENCE_S = 300
"""Ray takes most of it to start on a busy machine."""


def command(config: Path) -> list[str]:
    return [sys.executable, "-m", "distspectral", "run", str(config), "--json"]


def environment() -> dict[str, str]:
    patience = {"RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "200"}  # 60 by default, then it begins anew
    ours = {"OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}
    return os.environ | ours | patience


def kill_when(config: Path, reached: Callable[[], bool]) -> None:
    """Start a run and kill its driver as soon as ``reached`` says so."""
    process = subprocess.Popen(
        command(config), env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + PATIENCE_S
    while not reached():
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            pytest.fail(f"the run ended or hung before it was to be killed: {process.communicate()[1][-2000:]}")
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()


def windows(root: Path) -> list[int]:
    path = root / "training" / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line)["step"] for line in lines if line.endswith("\n")]  # the last one may be in the making


def written(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("part-*")}


@pytest.mark.ray
@pytest.mark.clusters
@pytest.mark.slow
@pytest.mark.flaky(reruns=1)
@pytest.mark.timeout(900)
def test_a_run_killed_in_training_and_in_embedding_finishes_and_redoes_nothing(tmp_path: Path) -> None:
    training = {"batch_size": 2048, "max_steps": 200, "window_steps": 10, "checkpoint_steps": 20, "patience": 0}
    config = write_run(
        tmp_path,
        sizes=(3,) * 40,
        train=training,
        network={"hidden": [256]},
        ray={"workers": 2, "actors": {"max": 1}},
    )
    root = tmp_path / "root"

    def checkpointed() -> bool:
        return len(list(root.glob("training/checkpoints/step-*/checkpoint.pt"))) > 0

    kill_when(config, checkpointed)
    steps_before = windows(root)
    assert steps_before[-1] < training["max_steps"]
    stages_done = {name: written(root / name) for name in ("vectors", "neighbors", "graph")}
    assert not (root / "training" / ".manifest.json").exists()

    kill_when(config, lambda: len(list(root.glob("output/.receipts/*.json"))) >= 3)
    steps = windows(root)
    assert steps == list(range(10, 201, 10)), "training went on from a checkpoint: no window is lost or repeated"
    model = (root / "model" / "model.pt").stat().st_mtime_ns
    shards_before = written(root / "output")
    assert 0 < len(shards_before) < 40

    done = CliRunner().invoke(app, ["run", str(config), "--local", "--json"])
    assert done.exit_code == 0, done.stderr
    metrics = json.loads(done.stdout)
    assert metrics["n_rows"] == N_ROWS
    assert {name: written(root / name) for name in ("vectors", "neighbors", "graph")} == stages_done
    assert (root / "model" / "model.pt").stat().st_mtime_ns == model
    after = written(root / "output")
    receipted = [name for name in shards_before if after[name] == shards_before[name]]
    assert len(receipted) >= 3, "finished shards are left as they are"
    tables = [pq.read_table(root / "output" / name) for name in sorted(after)]
    ids = np.concatenate([table["id"].to_numpy() for table in tables])
    np.testing.assert_array_equal(ids, np.arange(N_ROWS))

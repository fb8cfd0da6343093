"""The driver dies of SIGKILL, in the middle of training and of embedding; whoever comes next finishes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from distspectral.cli.app import app
from tests import kill
from tests.runs import N_ROWS, write_run

PATIENCE_S = 400
"""Ray takes most of it to start on a busy machine."""


def environment() -> dict[str, str]:
    patience = {"RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "200"}  # 60 by default, then it begins anew
    ours = {"OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}
    return os.environ | ours | patience


def killed(command: list[str], log: Path) -> None:
    """Have a run kill its driver; Ray's processes may outlive it for a moment, so none of them holds a pipe of ours."""
    with log.open("wb") as stream:
        done = subprocess.run(command, env=environment(), stdout=stream, stderr=stream, timeout=PATIENCE_S, check=False)
    assert done.returncode == -signal.SIGKILL, log.read_text()[-2000:]


def windows(root: Path) -> dict[int, str]:
    """Return the lines of the log by the step."""
    lines = (root / "training" / "metrics.jsonl").read_text().splitlines()
    found = {json.loads(line)["step"]: line for line in lines}
    assert len(found) == len(lines), "none is there twice"
    return found


def written(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("part-*")}


@pytest.mark.ray
@pytest.mark.clusters
@pytest.mark.slow
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

    killed(kill.run_in_training(30, "driver", "run", config, "--json"), tmp_path / "training.log")
    before = windows(root)
    assert list(before) == [10, 20, 30]
    stages_done = {name: written(root / name) for name in ("vectors", "neighbors", "graph")}
    assert not (root / "training" / ".manifest.json").exists()

    killed(kill.run_after_receipts("output/part-", 3, "run", config, "--json"), tmp_path / "embedding.log")
    after = windows(root)
    assert list(after) == list(range(10, 201, 10)), "no window is lost"
    assert [after[step] for step in (10, 20)] == [before[step] for step in (10, 20)], "it went on from the checkpoint"
    model = (root / "model" / "model.pt").stat().st_mtime_ns
    receipts = {path.stem for path in root.glob("output/.receipts/*.json")}
    assert len(receipts) == 3
    finished = {name: time_ns for name, time_ns in written(root / "output").items() if name in receipts}

    done = CliRunner().invoke(app, ["run", str(config), "--local", "--json"])
    assert done.exit_code == 0, done.stderr
    metrics = json.loads(done.stdout)
    assert metrics["n_rows"] == N_ROWS
    assert {name: written(root / name) for name in ("vectors", "neighbors", "graph")} == stages_done
    assert (root / "model" / "model.pt").stat().st_mtime_ns == model
    shards = written(root / "output")
    assert {name: shards[name] for name in receipts} == finished, "finished shards are left as they are"
    tables = [pq.read_table(root / "output" / name) for name in sorted(shards)]
    ids = np.concatenate([table["id"].to_numpy() for table in tables])
    np.testing.assert_array_equal(ids, np.arange(N_ROWS))

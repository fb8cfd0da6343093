from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from pydantic import ValidationError

from distspectral.orchestration.config import RayConfig, WorkerCount

PATIENCE_S = 800
"""Ray takes most of it to start workers and nodes on a busy machine."""


def test_workers_are_a_number_or_bounds() -> None:
    assert (RayConfig().min_workers, RayConfig().max_workers) == (2, 2)
    elastic = RayConfig.model_validate({"workers": {"min": 2, "max": 5}})
    assert (elastic.min_workers, elastic.max_workers) == (2, 5)
    assert WorkerCount(max=3).min == 1
    with pytest.raises(ValidationError, match="min 3 is above max 2"):
        RayConfig.model_validate({"workers": {"min": 3, "max": 2}})


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.flaky(reruns=1)
@pytest.mark.timeout(PATIENCE_S + 60)
def test_a_lost_node_shrinks_the_group_and_a_new_one_grows_it(tmp_path: Path) -> None:
    environment = os.environ | {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "disabled",
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.1",
        "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "6",
    }
    returncode, stdout, stderr = _train(tmp_path, environment)
    if returncode:  # without a traceback it was Ray's own code that ended the driver
        pytest.fail("\n".join([stderr[-3000:], *map(_last_words_of_ray, stdout.splitlines()[:1])]))
    heard: list[dict[str, Any]] = json.loads(stdout.splitlines()[-1])
    groups = [one["workers"] for one in heard]
    changes = [heard[i] for i in range(1, len(heard)) if groups[i] != groups[i - 1]]
    assert [groups[0], *(one["workers"] for one in changes)] == [2, 1, 2]
    steps = [one["step"] for one in heard]
    assert len(set(steps)) == len(steps), "no window is told twice"
    for before, after in itertools.pairwise(heard):
        assert after["step"] - before["step"] == 50 or after["workers"] != before["workers"]
        assert after["loss"] < before["loss"] + 1, "the loss goes on from where it was"
        if after["workers"] != before["workers"]:
            lost = after["at"] - before["at"]
            print(f"{before['workers']} to {after['workers']} workers at step {after['step']}: {lost:.0f} s")


def _train(folder: Path, environment: dict[str, str]) -> tuple[int, str, str]:
    """Return exit code, stdout and stderr of ``elastic.py``."""
    command = [sys.executable, "-m", "tests.orchestration.elastic", str(folder)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        stdout, stderr = process.communicate(timeout=PATIENCE_S)
    finally:
        if process.poll() is None:  # its cluster must not outlive it
            for child in psutil.Process(process.pid).children(recursive=True):
                child.kill()
            process.kill()
    return process.returncode, stdout, stderr


def _last_words_of_ray(session: str) -> str:
    """Return the ends of the logs of driver, head node and cluster."""
    names = ("python-core-driver-*.log", "raylet.out", "gcs_server.out")
    logs = sorted(path for name in names for path in Path(session, "logs").glob(name))
    return "\n".join(f"== {path}\n{path.read_text()[-3000:]}" for path in logs)

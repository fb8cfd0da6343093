"""What a run changes of the process that starts it: nothing that outlives the run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from distspectral.orchestration.connection import local_environment
from distspectral.orchestration.environment import environment_defaults
from tests.runs import write_run

RUN = """
import logging, os, sys
import ray.data
from distspectral.config import load_config
from distspectral.orchestration.connection import connect, disconnect
from distspectral.orchestration.engine import make_engine
from distspectral.orchestration.observer import SilentObserver
from distspectral.orchestration.pipeline import run
from distspectral.orchestration.tasks import task_mapper

def settings():
    shown = ray.data.DataContext.get_current().enable_progress_bars
    return {**os.environ, "ray.data": logging.getLogger("ray.data").level, "progress": shown}

config, before = load_config(sys.argv[1]), settings()
connect(config.ray)
print("workers inherit", *task_mapper(config.ray)(os.getenv, ["RAY_BACKEND_LOG_LEVEL"], "looking"))
run(config, make_engine(config.ray), SilentObserver())
disconnect()
print("changed", sorted(set(before.items()) ^ set(settings().items())))
"""


@pytest.mark.ray
@pytest.mark.slow
def test_a_run_with_a_ray_of_its_own_leaves_the_process_as_it_was(tmp_path: Path) -> None:
    ours = ("RAY_USAGE_STATS_ENABLED", *local_environment())
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    config = write_run(tmp_path, ray={"workers": {"min": 1, "max": 1}})
    command = [sys.executable, "-W", "ignore", "-c", RUN, str(config)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200, env=environment)
    assert done.stdout.splitlines()[-2:] == ["workers inherit fatal", "changed []"], done.stdout + done.stderr


@pytest.fixture
def variable(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.delenv("DISTSPECTRAL_TEST", raising=False)
    return "DISTSPECTRAL_TEST"


def fail(variable: str) -> None:
    with environment_defaults(**{variable: "ours"}):
        assert os.environ[variable] == "ours"
        raise ZeroDivisionError


def test_a_default_ends_with_the_block_also_with_an_error(variable: str) -> None:
    with pytest.raises(ZeroDivisionError):
        fail(variable)
    assert variable not in os.environ


def test_what_the_user_set_stays(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "user")
    with environment_defaults(**{variable: "ours"}):
        assert os.environ[variable] == "user"
    assert os.environ[variable] == "user"

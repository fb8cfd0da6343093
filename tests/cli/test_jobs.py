from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import typer.main

from distspectral.cli.app import app
from tests.runs import write_run

JOBS = Path(__file__).parents[2] / "jobs"
STAGES = ["pack", "graph", "train", "calibrate", "cluster", "embed", "report"]


def test_every_stage_and_the_pipeline_have_a_script_that_runs_its_command() -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    for name, command in [*zip(STAGES, STAGES, strict=True), ("pipeline", "run")]:
        (called,) = re.findall(r'^    run\("(\w+)", ', (JOBS / f"{name}.py").read_text(), re.M)
        assert called == command
        assert called in commands


def test_a_script_takes_the_config_by_name_and_passes_other_options_on(tmp_path: Path) -> None:
    config = str(write_run(tmp_path))
    command = [sys.executable, str(JOBS / "pack.py"), "--config", config, "--local", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert '"stage": "pack"' in done.stdout
    done = subprocess.run(command[:2], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert "--config" in done.stderr

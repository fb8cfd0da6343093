from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from distspectral.cli.app import EXIT_REFUSED
from tests.runs import N_ROWS, write_run

JOBS = Path(__file__).parents[2] / "jobs"


@pytest.fixture
def config(tmp_path: Path) -> str:
    return str(write_run(tmp_path))


def test_the_pipelines_script_is_the_run_command(config: str) -> None:
    command = [sys.executable, str(JOBS / "pipeline.py"), "--config", config, "--local", "--quiet", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["n_rows"] == N_ROWS


def code_of(script: str, *arguments: str, monkeypatch: pytest.MonkeyPatch) -> object:
    """Run a script in this process, as Python would; return its exit code."""
    monkeypatch.setattr(sys, "argv", [str(JOBS / script), *arguments])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(JOBS / script), run_name="__main__")
    return ended.value.code


def test_a_stages_script_takes_the_config_by_name_and_passes_other_options_on(
    config: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert code_of("stage.py", "pack", "--config", config, "--local", "--json", monkeypatch=monkeypatch) == 0
    assert json.loads(capsys.readouterr().out)["stage"] == "pack"


def test_a_script_ends_with_the_commands_exit_code(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert code_of("pipeline.py", "--config", "absent.yaml", monkeypatch=monkeypatch) == EXIT_REFUSED
    assert "absent.yaml: cannot be read" in capsys.readouterr().err
    assert code_of("stage.py", "pack", monkeypatch=monkeypatch) == 2
    assert "--config" in capsys.readouterr().err

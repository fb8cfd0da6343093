from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.runs import write_run

JOBS = Path(__file__).parents[2] / "jobs"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=120, check=False)


def test_a_script_takes_the_config_by_name_and_passes_other_options_on(tmp_path: Path) -> None:
    config = str(write_run(tmp_path))
    done = run(str(JOBS / "stage.py"), "pack", "--config", config, "--local", "--json")
    assert done.returncode == 0, done.stderr
    assert '"stage": "pack"' in done.stdout
    done = run(str(JOBS / "pipeline.py"), "--config", config, "--local", "--quiet", "--json")
    assert done.returncode == 0, done.stderr
    assert '"n_rows": 120' in done.stdout


def test_a_script_without_a_config_asks_for_it() -> None:
    done = run(str(JOBS / "stage.py"), "pack")
    assert done.returncode == 2
    assert "--config" in done.stderr

"""The array script without Slurm: each task is a shell with the variables that Slurm would set."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from distspectral.datasets import write_vectors
from tests.cluster_configs.rules import CONFIGS
from tests.datasets import blobs
from tests.runs import DIM

SCRIPT = CONFIGS / "slurm" / "embed.sh"


def task(number: int, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run one task of the array; `distspectral` is that of this interpreter."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    variables = {**os.environ, "PATH": path, "SLURM_ARRAY_TASK_ID": str(number), "SLURM_CPUS_PER_TASK": "1"}
    command = ["bash", str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, env=variables, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.slow
def test_the_tasks_of_an_array_fill_one_output(finished_run: Path, tmp_path: Path) -> None:
    vectors, labels = blobs(90, DIM, seed=1)
    write_vectors(str(tmp_path / "new"), vectors, labels=labels, sizes=(30, 30, 30))
    root, output = finished_run.parent / "root", tmp_path / "array"
    done = task(1, root, tmp_path / "new", output, 2)  # the shorter one, which may well be the first to end
    assert done.returncode == 0, done.stderr
    assert not (output / ".manifest.json").exists()
    done = task(0, root, tmp_path / "new", output, 2)
    assert done.returncode == 0, done.stderr
    assert (output / ".manifest.json").exists()
    assert pq.read_table(output).num_rows == 90


def test_a_task_that_is_told_too_little_says_what_it_wants() -> None:
    done = task(0, "runs/mine", "new")
    assert done.returncode == 2
    assert "RUN NEW OUTPUT SHARDS_PER_TASK" in done.stderr


def test_slurm_reads_its_options_before_the_first_command() -> None:
    lines = SCRIPT.read_text().splitlines()
    options = [number for number, line in enumerate(lines) if line.startswith("#SBATCH --")]
    first = next(number for number, line in enumerate(lines) if not line.startswith("#"))
    assert lines[0] == "#!/bin/bash"
    assert options
    assert max(options) < first
    assert all(re.fullmatch(r"#SBATCH --[a-z-]+(=\S+)?", lines[number]) for number in options)

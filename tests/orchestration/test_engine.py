"""Which hands a stage's items go to: actors that keep one GPU each, or tasks that see none."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import json, os, sys
import ray
from distspectral.config.ray import RayConfig
from distspectral.devices import gpus_are_hidden
from distspectral.orchestration.engine import RayEngine
from distspectral.stages import STAGES

def place(item):
    return os.getpid(), os.environ.get("CUDA_VISIBLE_DEVICES"), gpus_are_hidden(), os.environ["OMP_NUM_THREADS"]

ray.init(address="local", num_cpus=4, num_gpus=2, include_dashboard=False, object_store_memory=100 << 20)
mapper = RayEngine(RayConfig()).mapper(STAGES["spectral"]["neighbors"])
found = {on_gpu: list(mapper(place, range(12), "looking", on_gpu=on_gpu)) for on_gpu in (True, False)}
print(json.dumps([found[True], found[False]]))
"""


@pytest.mark.ray
@pytest.mark.clusters
def test_parts_on_gpus_keep_one_in_a_process_and_the_others_see_none(tmp_path: Path) -> None:
    """GPUs that Ray only counts: which a process is given is what is looked at."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    on_gpu, elsewhere = json.loads(done.stdout.splitlines()[-1])
    given = {(process, gpus) for process, gpus, _, _ in on_gpu}
    assert len(given) == len({process for process, _ in given}) <= 2, "at most two actors, each with its GPU throughout"
    assert {gpus for _, gpus in given} <= {"0", "1"}
    assert [hidden for _, _, hidden, _ in on_gpu] == [False] * 12
    assert {threads for *_, threads in on_gpu} == {"2"}, "the CPUs of the node that belong to a GPU"
    assert [hidden for _, _, hidden, _ in elsewhere] == [True] * 12
    assert {threads for *_, threads in elsewhere} == {"1"}

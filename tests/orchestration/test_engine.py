"""Which hands a stage's items go to: actors that keep one GPU each, or tasks that see none."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import ray

from distspectral.config.ray import RayConfig
from distspectral.orchestration import actors, connection, room, tasks
from distspectral.orchestration.engine import SMALL_DATA, SMALL_TRAINING, RayEngine
from distspectral.stages import STAGES
from tests.runs import write_run

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


def made_by(made: list[str], name: str) -> Any:
    def make(*_: Any) -> Any:
        made.append(name)
        return lambda *_, **__: iter(())

    return make


@pytest.mark.parametrize(
    ("asked", "expected"),
    [({}, "tasks"), ({"actors": {"max": 2}}, "actors"), ({"use_gpu": True}, "actors")],
    ids=["nothing asked", "bounds", "GPUs"],
)
def test_rows_pass_a_network_in_tasks_unless_actors_or_gpus_are_asked_for(
    monkeypatch: pytest.MonkeyPatch, asked: dict[str, Any], expected: str
) -> None:
    made: list[str] = []
    monkeypatch.setattr(tasks, "task_mapper", made_by(made, "tasks"))
    monkeypatch.setattr(actors, "actor_mapper", made_by(made, "actors"))
    monkeypatch.setattr(room, "require_unit", lambda *_: None)
    monkeypatch.setattr(ray, "nodes", list)
    config = RayConfig.model_validate({"use_gpu": False} | asked)
    list(RayEngine(config).mapper(STAGES["spectral"]["embed"])(str, [1], "embedding", on_gpu=True))
    assert made == [expected]


@pytest.mark.parametrize(
    ("asked", "n_values", "address", "stays"),
    [
        ({}, SMALL_DATA, None, True),
        ({}, SMALL_DATA + 1, None, False),
        ({}, 1, "10.0.0.1:6379", False),
        ({"address": "auto"}, 1, None, False),
        ({"workers": 2}, 1, None, False),
        ({"use_gpu": True}, 1, None, False),
        ({"resources": {"embed": {"num_cpus": 1}}}, 1, None, False),
    ],
)
def test_few_rows_need_no_ray_unless_one_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, asked: dict[str, Any], n_values: int, address: str | None, stays: bool
) -> None:
    joined: list[RayConfig] = []

    def connect(config: RayConfig) -> bool:
        joined.append(config)
        return False

    monkeypatch.setattr(connection, "connect", connect)
    monkeypatch.setattr(room, "require_room", lambda *_: None)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if address is not None:
        monkeypatch.setenv("RAY_ADDRESS", address)
    engine, embed = RayEngine(RayConfig.model_validate(asked)), STAGES["spectral"]["embed"]
    engine.start([embed], n_values)
    assert (joined == []) == engine.is_one_process == stays
    if stays:
        assert list(engine.mapper(embed)(str, [1, 2], "embedding", on_gpu=True)) == ["1", "2"]
        assert engine.slots() == 1
    engine.start([embed], 2 * SMALL_DATA)
    assert not engine.is_one_process, "larger rows than before are worth one"


def test_a_run_of_few_rows_never_imports_ray(tmp_path: Path) -> None:
    config = write_run(tmp_path, ray={}, map={"enabled": False})
    code = (
        "import sys; from distspectral.cli.app import app; from typer.testing import CliRunner;"
        f"done = CliRunner().invoke(app, ['run', {str(config)!r}, '--quiet', '--json']);"
        "print(done.exit_code, 'ray' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "0 False"


@pytest.mark.parametrize(
    ("asked", "operations", "is_own", "stays"),
    [
        ({}, SMALL_TRAINING, True, True),
        ({}, 2 * SMALL_TRAINING, True, False),
        ({}, 1.0, False, False),
        ({"workers": 2}, 1.0, True, False),
        ({"use_gpu": True}, 1.0, True, False),
        ({"resources": {"train": {"num_cpus": 1}}}, 1.0, True, False),
        ({"resources": {"siamese": {"num_cpus": 1}}}, 1.0, True, True),
    ],
    ids=["small", "large", "a cluster's", "workers asked", "GPUs asked", "resources asked", "another's resources"],
)
def test_a_small_training_stays_in_this_process_unless_something_is_asked_for_it(
    monkeypatch: pytest.MonkeyPatch, asked: dict[str, Any], operations: float, is_own: bool, stays: bool
) -> None:
    monkeypatch.setattr(connection, "is_own", lambda: is_own)
    monkeypatch.setattr(ray, "nodes", list)
    engine = RayEngine(RayConfig.model_validate({"use_gpu": False} | asked))
    assert engine._trains_here("train", operations) is stays

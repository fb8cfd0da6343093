from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ray.job_submission import JobStatus

from distspectral.config import load_config
from distspectral.datasets import write_vectors
from distspectral.errors import ClusterUnreachableError, ConfigError
from distspectral.orchestration import submit
from tests.runs import DIM, write_run

ROOT = Path(__file__).parents[2]
PATIENCE_S = 200
OBJECT_STORE_BYTES = 100 << 20


class FakeClient:
    """Answers as a dashboard would; ``tails`` are what each connection to the log delivers before it breaks."""

    def __init__(self, jobs: dict[str, JobStatus] | None = None, tails: tuple[tuple[str, ...], ...] = ()) -> None:
        self.jobs, self.tails = dict(jobs or {}), list(tails)
        self.submitted: list[str] = []

    def list_jobs(self) -> list[Any]:
        return [SimpleNamespace(submission_id=name, status=status) for name, status in self.jobs.items()]

    def submit_job(self, submission_id: str, runtime_env: dict[str, Any], **_: Any) -> None:
        assert (Path(runtime_env["working_dir"]) / "run.yaml").exists()
        self.submitted.append(submission_id)

    async def tail_job_logs(self, name: str) -> AsyncIterator[str]:
        for piece in self.tails.pop(0):
            yield piece
        if self.tails:
            raise RuntimeError("WebSocket connection closed unexpectedly with close code 1006")

    def get_job_info(self, name: str) -> Any:
        return SimpleNamespace(status=JobStatus.RUNNING if self.tails else JobStatus.SUCCEEDED, driver_exit_code=0)


def job(folder: Path, **sections: Any) -> submit.Job:
    return submit.make_job(load_config(write_run(folder, **sections)))


def test_the_same_config_is_the_same_job_and_another_config_another(tmp_path: Path) -> None:
    one = job(tmp_path)
    assert one.name == job(tmp_path).name
    assert one.name != job(tmp_path, seed=1).name
    assert one.name != submit.make_job(one.config, "pack").name


@pytest.mark.parametrize("status", [JobStatus.PENDING, JobStatus.RUNNING, JobStatus.SUCCEEDED])
def test_a_job_that_is_there_is_not_submitted_twice(tmp_path: Path, status: JobStatus) -> None:
    one = job(tmp_path)
    client = FakeClient({one.name: status})
    assert submit.submit(client, one) == (one.name, False)
    assert client.submitted == []


def test_a_failed_job_is_submitted_under_the_next_number(tmp_path: Path) -> None:
    one = job(tmp_path)
    client = FakeClient({one.name: JobStatus.FAILED, f"{one.name}-2": JobStatus.STOPPED})
    assert submit.submit(client, one) == (f"{one.name}-3", True)
    assert submit.find(client, one) == f"{one.name}-2"
    assert submit.submit(FakeClient({one.name: JobStatus.SUCCEEDED}), one, again=True) == (f"{one.name}-2", True)
    assert submit.find(FakeClient(), one) is None


def test_a_cluster_that_has_just_started_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Starting(FakeClient):
        refusals = 2

        def submit_job(self, **job: Any) -> None:
            if self.refusals:
                self.refusals -= 1
                raise RuntimeError("status code 500: No available agent to submit job, please try again later.")
            super().submit_job(**job)

    monkeypatch.setattr(submit, "FIRST_PAUSE_S", 0.01)
    client, one = Starting(), job(tmp_path)
    assert submit.submit(client, one) == (one.name, True)
    assert client.submitted == [one.name]


def test_a_broken_log_is_taken_up_where_it_broke(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submit, "FIRST_PAUSE_S", 0.01)
    client = FakeClient(tails=(("one ", "two "), ("one",), ("one two th", "ree "), ("one two three four",)))
    pieces: list[str] = []
    assert submit.follow(client, "job", pieces.append).status == JobStatus.SUCCEEDED
    assert "".join(pieces) == "one two three four"


def test_a_silent_cluster_is_given_up_with_a_way_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submit, "PATIENCE_S", 0.0)
    with pytest.raises(ClusterUnreachableError, match="submit the same config to follow it again"):
        submit.follow(FakeClient(tails=((), ())), "job", print)


def test_relative_paths_are_refused_before_anything_is_sent(tmp_path: Path) -> None:
    config = load_config(write_run(tmp_path), ["root=runs/tiny"])
    with pytest.raises(ConfigError, match=r"^root: is runs/tiny, relative to this machine's working directory"):
        submit.make_job(config)


def test_nobody_at_the_address_is_said_with_the_command_that_helps() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(ClusterUnreachableError, match="kubectl port-forward"):
        submit.connect(f"http://127.0.0.1:{port}")


def environment() -> dict[str, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    own = {"PATH": path, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "COLUMNS": "200"}
    return os.environ | own | {"PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}


@pytest.fixture(scope="module")
def dashboard() -> Iterator[str]:
    """The address of a cluster of three nodes on this machine, a head without work and two with two CPUs each."""
    from ray.cluster_utils import Cluster

    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_server(("127.0.0.1", 0)) as other:
        port, agent_port = server.getsockname()[1], other.getsockname()[1]
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment().items():
            patch.setenv(name, value)
        # the head's agent takes jobs; its usual port belongs to another Ray on this machine, if there is one
        ports = {"dashboard_port": port, "dashboard_agent_listen_port": agent_port}
        head = {"num_cpus": 0, "include_dashboard": True} | ports
        cluster = Cluster(initialize_head=True, head_node_args=head | {"object_store_memory": OBJECT_STORE_BYTES})
        try:
            for _ in range(2):
                cluster.add_node(num_cpus=2, object_store_memory=OBJECT_STORE_BYTES)
            yield f"http://127.0.0.1:{port}"
        finally:
            cluster.shutdown()


@pytest.fixture(scope="module")
def run_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("submitted"), ray={"workers": 2, "use_gpu": False})


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        arguments, env=environment(), cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )


def distspectral(*arguments: str) -> subprocess.CompletedProcess[str]:
    return command(sys.executable, "-m", "distspectral", *arguments)


live = pytest.mark.ray


@live
@pytest.mark.slow
def test_the_command_runs_the_pipeline_on_the_cluster_and_shows_its_log(dashboard: str, run_file: Path) -> None:
    done = distspectral("submit", str(run_file), "--address", dashboard)
    assert done.returncode == 0, done.stdout + done.stderr
    assert ": submitted" in done.stdout
    stages = ["packed in", "searched neighbours in", "trained in", "calibrated in", "embedded in"]
    assert [stage in done.stdout for stage in stages] == [True] * len(stages)
    assert (run_file.parent / "root" / "metrics.json").exists()

    again = distspectral("submit", str(run_file), "--address", dashboard)
    assert again.returncode == 0
    assert "was submitted before" in again.stdout
    assert "embedded in" in again.stdout, "the log of then"


@live
def test_rays_own_command_runs_the_job_script(dashboard: str, run_file: Path) -> None:
    arguments = ("job", "submit", "--address", dashboard, "--working-dir", ".")
    script = ("python", "jobs/pack.py", "--config", str(run_file))
    done = command("ray", *arguments, "--", *script)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "pack" in done.stdout


@live
def test_a_failing_job_ends_with_the_users_error_and_its_exit_code(dashboard: str, tmp_path: Path) -> None:
    path = write_run(tmp_path, ray={"workers": 2, "use_gpu": False})
    vectors = np.ones((5, DIM), np.float32)
    vectors[3, 2] = np.nan
    write_vectors(str(tmp_path / "data"), vectors, labels=np.zeros(5, np.int64))  # replaces part-00000
    client = submit.connect(dashboard)
    one = submit.make_job(load_config(path, ["data.id_column=null"]))
    name, is_new = submit.submit(client, one)
    assert is_new
    pieces: list[str] = []
    details = submit.follow(client, name, pieces.append)
    lines = [line for line in "".join(pieces).splitlines() if line.strip()]
    assert submit.exit_code(details) == 2
    assert "Traceback" not in "".join(lines)
    first_error = next(line for line in lines if "rror" in line)
    assert first_error.startswith("error: ")
    assert "part-00000.parquet" in first_error
    assert "row 3" in first_error


@live
def test_a_detached_job_is_found_again_and_stopped(dashboard: str, tmp_path: Path) -> None:
    path = write_run(tmp_path, ray={"workers": 2, "use_gpu": False})
    arguments = (str(path), "--address", dashboard, "--set", "train.max_steps=1000000", "--set", "train.patience=0")
    detached = distspectral("submit", *arguments, "--detach")
    assert detached.returncode == 0, detached.stdout + detached.stderr
    client = submit.connect(dashboard)
    one = submit.make_job(load_config(path, arguments[4::2]))
    deadline = time.monotonic() + PATIENCE_S
    while client.get_job_info(one.name).status != JobStatus.RUNNING:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    stopped = distspectral("submit", *arguments, "--stop")
    assert stopped.returncode == 0
    assert f"job {one.name}: stopped" in stopped.stdout
    assert submit.exit_code(client.get_job_info(one.name)) == 130

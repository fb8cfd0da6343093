from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.job_submission import JobStatus

from distspectral.config import load_config
from distspectral.errors import ClusterUnreachableError, ConfigError
from distspectral.orchestration import submit
from tests.runs import write_run


class FakeClient:
    """Answers as a dashboard would; ``tails`` are what each connection to the log delivers before it breaks."""

    def __init__(self, jobs: dict[str, JobStatus] | None = None, tails: tuple[tuple[str, ...], ...] = ()) -> None:
        self.jobs, self.tails = dict(jobs or {}), list(tails)
        self.log = ""
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

    def get_job_logs(self, name: str) -> str:
        return self.log

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


def test_a_cluster_that_has_just_started_is_asked_again(tmp_path: Path) -> None:
    class Starting(FakeClient):
        refusals = 2

        def submit_job(self, **job: Any) -> None:
            if self.refusals:
                self.refusals -= 1
                raise RuntimeError("status code 500: No available agent to submit job, please try again later.")
            super().submit_job(**job)

    client, one = Starting(), job(tmp_path)
    assert submit.submit(client, one, pause_s=0.01) == (one.name, True)
    assert client.submitted == [one.name]


def test_a_broken_log_is_taken_up_where_it_broke(tmp_path: Path) -> None:
    client = FakeClient(tails=(("one ", "two "), ("one",), ("one two th", "ree "), ("one two three four",)))
    pieces: list[str] = []
    assert submit.follow(client, "job", pieces.append, pause_s=0.01).status == JobStatus.SUCCEEDED
    assert "".join(pieces) == "one two three four"


def test_what_the_tail_left_out_is_shown_when_the_job_has_ended() -> None:
    client = FakeClient(tails=(("packed\n",),))
    client.log = "packed\nerror: row 3\n"
    pieces: list[str] = []
    submit.follow(client, "job", pieces.append)
    assert "".join(pieces) == client.log


def test_a_job_that_is_still_starting_is_asked_again_to_stop() -> None:
    class Starting(FakeClient):
        asked = 0

        def stop_job(self, name: str) -> bool:
            self.asked += 1
            if self.asked == 1:
                raise RuntimeError("status code 500")
            return self.asked > 2  # False: the wish was passed over

        def get_job_info(self, name: str) -> Any:
            return SimpleNamespace(status=JobStatus.STOPPED if self.asked > 2 else JobStatus.PENDING)

    client = Starting()
    assert submit.stop(client, "job", pause_s=0.01).status == JobStatus.STOPPED
    assert client.asked == 3


def test_a_cluster_that_does_not_take_the_job_is_said_in_one_line(tmp_path: Path) -> None:
    class Refusing(FakeClient):
        def submit_job(self, **job: Any) -> None:
            raise RuntimeError("status code 500: Traceback (most recent call last):\nOSError: no room")

    one = job(tmp_path)
    with pytest.raises(ClusterUnreachableError, match=rf"job {one.name}: was not taken \(OSError: no room\);"):
        submit.submit(Refusing(), one)


def test_a_silent_cluster_is_given_up_with_a_way_back() -> None:
    with pytest.raises(ClusterUnreachableError, match="submit the same config to follow it again"):
        submit.follow(FakeClient(tails=((), ())), "job", print, patience_s=0.0)


def test_relative_paths_are_refused_before_anything_is_sent(tmp_path: Path) -> None:
    config = load_config(write_run(tmp_path), ["root=runs/tiny"])
    with pytest.raises(ConfigError, match=r"^root: is runs/tiny, relative to this machine's working directory"):
        submit.make_job(config)
    for key in ("graph.path", "start_from"):
        config = load_config(write_run(tmp_path), [f"{key}=runs/other"])
        with pytest.raises(ConfigError, match=rf"^{key}: is runs/other, relative to this machine"):
            submit.make_job(config)


def test_an_address_without_a_scheme_is_refused_at_once() -> None:
    with pytest.raises(ClusterUnreachableError, match=r"--address localhost:8265: .* give http://localhost:8265"):
        submit.connect("localhost:8265")


def test_nobody_at_the_address_is_said_with_the_command_that_helps() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(ClusterUnreachableError, match="kubectl port-forward"):
        submit.connect(f"http://127.0.0.1:{port}")

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.job_submission import JobStatus
from typer.testing import CliRunner

from distspectral.cli import submit as command
from distspectral.cli.app import app
from distspectral.orchestration import submit as jobs
from tests.runs import write_run


class Client:
    """A dashboard that holds one job, which runs until it is stopped."""

    def __init__(self) -> None:
        self.name = ""
        self.stopped = False

    def list_jobs(self) -> list[Any]:
        return [self.get_job_info(self.name)] if self.name else []

    def submit_job(self, submission_id: str, **_: Any) -> None:
        self.name = submission_id

    def stop_job(self, name: str) -> None:
        self.stopped = True

    def get_job_info(self, name: str) -> Any:
        status = JobStatus.STOPPED if self.stopped else JobStatus.RUNNING
        return SimpleNamespace(submission_id=name, status=status, driver_exit_code=None, message="stopped by user")


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Client:
    """The client that the command gets; following its job is interrupted at once, at a terminal."""
    client = Client()

    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    def connect(address: str | None, headers: dict[str, str] | None) -> Client:
        client.__dict__.update(address=address, headers=headers)
        return client

    monkeypatch.setattr(jobs, "connect", connect)
    monkeypatch.setattr(jobs, "follow", interrupted)
    return client


@pytest.mark.parametrize(("answer", "stopped"), [("y", True), ("n", False), ("", False)])
def test_ctrl_c_asks_before_it_stops_the_job(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str, stopped: bool
) -> None:
    monkeypatch.setattr(command, "is_terminal", lambda: True)
    done = CliRunner().invoke(app, ["submit", str(write_run(tmp_path)), "--address", "http://x:1"], input=f"{answer}\n")
    assert client.stopped is stopped
    assert done.exit_code == 130
    assert f"stop job {client.name}?" in done.output
    assert ("goes on" in done.output) is not stopped


def test_ctrl_c_where_nobody_can_be_asked_leaves_the_job_alone(client: Client, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["submit", str(write_run(tmp_path))])
    assert not client.stopped
    assert "goes on" in done.output


def test_address_and_headers_come_from_the_environment(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "https://proxy/ray")
    monkeypatch.setenv("RAY_JOB_HEADERS", '{"Authorization": "Bearer t"}')
    arguments = ["submit", str(write_run(tmp_path)), "--detach"]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    assert client.address == "https://proxy/ray"  # type: ignore[attr-defined]
    assert client.headers == {"Authorization": "Bearer t"}  # type: ignore[attr-defined]
    monkeypatch.setenv("RAY_JOB_HEADERS", "Bearer t")
    refused = CliRunner().invoke(app, arguments)
    assert refused.exit_code == 2
    assert "RAY_JOB_HEADERS: is no JSON object" in refused.output


def test_stopping_what_was_never_submitted_is_an_error(client: Client, tmp_path: Path) -> None:
    path = str(write_run(tmp_path))
    refused = CliRunner().invoke(app, ["submit", path, "--stop"])
    assert refused.exit_code == 2
    assert "was never submitted" in refused.output
    CliRunner().invoke(app, ["submit", path, "--detach"])
    assert CliRunner().invoke(app, ["submit", path, "--stop"]).exit_code == 0
    assert client.stopped

"""A run as a job on a Ray cluster elsewhere: submitted once, followed until its end, its exit code brought back.

The job is named after its config, so that submitting the same run twice finds the one that is there.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import requests
import yaml
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

import distspectral
from distspectral.errors import ClusterUnreachableError, ConfigError, first_line
from distspectral.storage.artifact.manifest import fingerprint

if TYPE_CHECKING:
    from distspectral.config import RunConfig

CONFIG_FILE = "run.yaml"
EXIT_STOPPED = 130
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 15.0
PATIENCE_S = 300.0
"""How long a cluster may be silent before it is given up; the job goes on without us."""

START_S = 120.0
NO_AGENT_YET = "No available agent"
"""What a head answers whose agent is still starting."""

LOST = (aiohttp.ClientError, requests.RequestException, ConnectionError, RuntimeError)
"""What the client raises when nobody answers, or a connection breaks; it wraps refusals in RuntimeError."""


@dataclasses.dataclass(frozen=True)
class Job:
    """What is submitted.

    Attributes:
        name: submission id of the first try.
        stage: the one stage to run, None for the whole run.
        config: the run.
        modules: package directories that go along, before those installed on the cluster.
    """

    name: str
    stage: str | None
    config: RunConfig
    modules: tuple[Path, ...] = ()

    @property
    def entrypoint(self) -> str:
        """The command that the cluster's head runs."""
        command = "run" if self.stage is None else f"stage {self.stage}"
        return f"python -m distspectral {command} {CONFIG_FILE}"


def our_package() -> Path:
    """Return the directory of this ``distspectral``, to go along where the cluster has none or another."""
    return Path(distspectral.__file__).parent


def make_job(config: RunConfig, stage: str | None = None, modules: Sequence[Path] = ()) -> Job:
    """Return the job of a config.

    Args:
        config: the run.
        stage: the one stage to run, None for the whole run.
        modules: package directories to send along, such as the one that ``network.trunk`` names.

    Raises:
        ConfigError: a path is relative, so that it would name another place on the cluster.
    """
    paths = [config.data.path] if isinstance(config.data.path, str) else list(config.data.path)
    others = {"graph.path": config.graph.path, "start_from": config.start_from}
    asked = [(key, path) for key, path in others.items() if path is not None]
    for key, path in (("root", config.root), *(("data.path", path) for path in paths), *asked):
        if "://" not in path and not Path(path).is_absolute():
            raise ConfigError(
                f"{key}: is {path}, relative to this machine's working directory; a job runs elsewhere, so give an "
                "absolute path that every node sees, or a URI such as s3://bucket/folder",
                [key],
            )
    identity = {"stage": stage, "version": distspectral.__version__, "config": config.model_dump(mode="json")}
    name = f"distspectral-{config.name}-{stage or 'run'}-{fingerprint('job', identity, {})}"
    return Job(name, stage, config, tuple(modules))


def connect(address: str | None, headers: Mapping[str, str] | None = None) -> JobSubmissionClient:
    """Return a client of the cluster's dashboard.

    Args:
        address: ``http://host:8265``; None takes ``RAY_API_SERVER_ADDRESS``, or the cluster of this machine.
        headers: sent with every request, for a proxy in front. Ray adds its token by itself.

    Raises:
        ClusterUnreachableError: nothing answers there.
    """
    if address is not None and "://" not in address:
        raise ClusterUnreachableError(f"--address {address}: has no scheme; give http://{address}")
    try:
        return JobSubmissionClient(address, headers=dict(headers) if headers else None)
    except (*LOST, ValueError) as error:
        raise ClusterUnreachableError(
            f"--address {address or '(none)'}: no Ray dashboard answers ({first_line(error)}); give http://HOST:8265, "
            "on Kubernetes after `kubectl port-forward service/NAME-head-svc 8265`, with `ray up` after `ray dashboard`"
        ) from error


def submit(
    client: JobSubmissionClient, job: Job, again: bool = False, *, pause_s: float = FIRST_PAUSE_S
) -> tuple[str, bool]:
    """Submit the job unless it is there: waiting, running, or done well.

    A job that failed or was stopped is submitted anew, and goes on with the artifacts that stand.

    Args:
        client: of the cluster.
        job: what to submit.
        again: submit anew a job that is done well, too; data may have changed.
        pause_s: before a cluster that has just started is asked again.

    Returns:
        The submission id, and whether this call submitted it.

    Raises:
        ClusterUnreachableError: the cluster does not take it.
    """
    tries = _tries(client, job)
    for name, status in tries.items():
        is_wanted = status == JobStatus.SUCCEEDED and not again
        if is_wanted or not status.is_terminal():
            return name, False
    name = _try_name(job, len(tries) + 1)
    with _runtime_environment(job) as environment:
        try:
            _send(
                client,
                pause_s,
                entrypoint=job.entrypoint,
                submission_id=name,
                runtime_env=environment,
                metadata={"run": job.config.name, "root": job.config.root, "stage": job.stage or "all"},
            )
        except RuntimeError as error:
            if not any(details.submission_id == name for details in client.list_jobs()):
                reason = str(error).strip().splitlines()[-1]  # of the dashboard's traceback
                raise ClusterUnreachableError(
                    f"job {name}: was not taken ({reason}); look at the cluster's dashboard and submit again"
                ) from error
            return name, False  # another one submitted it in the meantime
    return name, True


def _send(client: JobSubmissionClient, pause_s: float, **job: Any) -> None:
    """Submit; a cluster that has just started has no agent yet, and says to try again."""
    deadline = time.monotonic() + START_S
    while True:
        try:
            client.submit_job(**job)
            return
        except RuntimeError as error:
            if NO_AGENT_YET not in str(error) or time.monotonic() > deadline:
                raise
        time.sleep(pause_s)


def find(client: JobSubmissionClient, job: Job) -> str | None:
    """Return the submission id of the job's last try, None where it was never submitted."""
    return next(reversed(_tries(client, job)), None)


def _tries(client: JobSubmissionClient, job: Job) -> dict[str, JobStatus]:
    """Return the submission ids under which the cluster knows the job, the first try first, and how each stands."""
    known = {details.submission_id: details.status for details in client.list_jobs()}
    names = (_try_name(job, number) for number in itertools.count(1))
    return {name: known[name] for name in itertools.takewhile(known.__contains__, names)}


def _try_name(job: Job, number: int) -> str:
    return job.name if number == 1 else f"{job.name}-{number}"


@contextlib.contextmanager
def _runtime_environment(job: Job) -> Iterator[dict[str, Any]]:
    """Yield what goes along: a working directory that holds the resolved config alone, and the modules."""
    with tempfile.TemporaryDirectory(prefix="distspectral-job-") as folder:
        text = yaml.safe_dump(job.config.model_dump(mode="json"), sort_keys=False)
        (Path(folder) / CONFIG_FILE).write_text(text, "utf-8")
        environment: dict[str, Any] = {"working_dir": folder}
        if job.modules:
            environment["py_modules"] = [str(module) for module in job.modules]
        yield environment


def follow(
    client: JobSubmissionClient,
    name: str,
    write: Callable[[str], object],
    *,
    pause_s: float = FIRST_PAUSE_S,
    patience_s: float = PATIENCE_S,
) -> JobDetails:
    """Pass the job's log on until the job ends; a broken connection is taken up where it broke.

    Args:
        client: of the cluster.
        name: submission id.
        write: takes pieces of the log.
        pause_s: before the first of several tries to go on; twice as long before each that follows.
        patience_s: how long the cluster may be silent.

    Raises:
        ClusterUnreachableError: it was silent for longer.
    """
    n_written = 0
    pause, silent_since = pause_s, time.monotonic()

    async def tail() -> None:
        nonlocal n_written, pause, silent_since
        n_read = 0
        async for piece in client.tail_job_logs(name):
            n_read += len(piece)
            new = piece[max(0, len(piece) - (n_read - n_written)) :] if n_read > n_written else ""
            if new:
                write(new)
                n_written = n_read
            pause, silent_since = pause_s, time.monotonic()

    while True:
        try:
            asyncio.run(tail())
            details = client.get_job_info(name)
            if details.status.is_terminal():
                if rest := client.get_job_logs(name)[n_written:]:  # Ray ends a tail that it cannot read on quietly
                    write(rest)
                return details
            silent_since = time.monotonic()
        except LOST as error:
            _give_up_after(patience_s, silent_since, name, error)
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE_S)


def stop(client: JobSubmissionClient, name: str, *, pause_s: float = FIRST_PAUSE_S) -> JobDetails:
    """Stop the job and wait until it has ended; what it has finished stays.

    It is asked more than once: Ray passes over the wish while the job's own process is still starting.

    Args:
        client: of the cluster.
        name: submission id.
        pause_s: before it is asked again.

    Raises:
        ClusterUnreachableError: the cluster was silent for five minutes.
    """
    silent_since = time.monotonic()
    while True:
        try:
            details = client.get_job_info(name)
            if details.status.is_terminal():
                return details
            client.stop_job(name)
            silent_since = time.monotonic()
        except LOST as error:
            _give_up_after(PATIENCE_S, silent_since, name, error)
        time.sleep(pause_s)


def _give_up_after(patience_s: float, silent_since: float, name: str, error: BaseException) -> None:
    """Raise if the cluster has been silent for too long."""
    if time.monotonic() - silent_since > patience_s:
        raise ClusterUnreachableError(
            f"job {name}: the cluster did not answer for {patience_s:.0f} s ({first_line(error)}); the job may go on: "
            "submit the same config to follow it again"
        ) from error


def exit_code(details: JobDetails) -> int:
    """Return what the job's command returned; 130 if it was stopped, 1 if it never came to return anything."""
    if details.status == JobStatus.SUCCEEDED:
        return 0
    if details.status == JobStatus.STOPPED:
        return EXIT_STOPPED
    return details.driver_exit_code or 1

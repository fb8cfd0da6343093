"""``distspectral submit``: a run as a job on a cluster elsewhere, followed until its end."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from distspectral.cli.console import print_error, print_note
from distspectral.cli.options import ConfigPath, Overrides, load, require_stage
from distspectral.errors import ConfigError

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

HEADERS_VARIABLE = "RAY_JOB_HEADERS"

Address = Annotated[
    str | None,
    typer.Option(
        "--address",
        envvar="RAY_API_SERVER_ADDRESS",
        metavar="URL",
        help="The cluster's dashboard, http://HOST:8265. Headers for a proxy: RAY_JOB_HEADERS, a JSON object.",
    ),
]
StageName = Annotated[
    str | None,
    typer.Option(
        "--stage", metavar="NAME", help="Submit one stage, of those that `stage -h` lists, instead of the whole run."
    ),
]
WithCode = Annotated[bool, typer.Option("--with-code", help="Send this machine's distspectral along.")]
Modules = Annotated[
    list[Path] | None,
    typer.Option("--module", metavar="DIR", help="Send a package of your own along; may be repeated."),
]
Detach = Annotated[bool, typer.Option("--detach", help="Submit and leave; the same command follows it later.")]
Again = Annotated[bool, typer.Option("--again", help="Submit anew a run that is done; its data may have changed.")]
Stop = Annotated[bool, typer.Option("--stop", help="Stop the job of this config instead.")]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("submit")(submit)


def submit(
    config: ConfigPath,
    overrides: Overrides = None,
    address: Address = None,
    stage: StageName = None,
    with_code: WithCode = False,
    modules: Modules = None,
    detach: Detach = False,
    again: Again = False,
    stop: Stop = False,
) -> None:
    """Run a config as a job on a Ray cluster: show its log and return its exit code.

    The same config is the same job: submitted twice it runs once, and the second command follows the first's log.
    One that failed or was stopped is submitted anew and goes on with what it has. Ctrl-C asks before it stops a job.
    """
    from distspectral.orchestration import submit as jobs

    if stage is not None:
        require_stage(stage)
    packages = [jobs.our_package()] if with_code else []
    job = jobs.make_job(load(config, overrides), stage, [*packages, *(modules or ())])
    client = jobs.connect(address, _headers(os.environ.get(HEADERS_VARIABLE)))
    if stop:
        _stop(client, jobs.find(client, job), job.name)
        return
    name, is_new = jobs.submit(client, job, again)
    print_note(f"job {name}: {'submitted' if is_new else 'was submitted before'}")
    if detach:
        return
    try:
        details = jobs.follow(client, name, _write)
    except KeyboardInterrupt:
        if not _wants_to_stop(name):
            print_note(f"job {name}: goes on; the same command follows it again, with --stop it ends")
            raise typer.Exit(jobs.EXIT_STOPPED) from None
        details = jobs.stop(client, name)
    code = jobs.exit_code(details)
    ended = str(details.status.value).lower()
    if code:
        # the log, above, ends with the run's own error; Ray's message repeats it inside its own words
        reason = "" if details.driver_exit_code else f" ({(details.message or 'no message').splitlines()[0]})"
        print_error(f"job {name}: {ended}, exit code {code}{reason}")
    else:
        print_note(f"job {name}: {ended}")
    raise typer.Exit(code)


def _stop(client: JobSubmissionClient, name: str | None, wanted: str) -> None:
    from distspectral.orchestration import submit as jobs

    if name is None:
        raise ConfigError(f"job {wanted}: was never submitted to this cluster; check --address and the config")
    print_note(f"job {name}: {str(jobs.stop(client, name).status.value).lower()}")


def _headers(text: str | None) -> dict[str, str] | None:
    """Return the headers of a JSON object."""
    if text is None:
        return None
    try:
        headers = json.loads(text)
    except ValueError:
        headers = None
    if not isinstance(headers, dict):
        raise ConfigError(f'{HEADERS_VARIABLE}: is no JSON object; expected such as {{"Authorization": "Bearer ..."}}')
    return headers


def _write(piece: str) -> None:
    sys.stdout.write(piece)
    sys.stdout.flush()


def is_terminal() -> bool:
    """Whether a person can be asked."""
    return sys.stdin.isatty()


def _wants_to_stop(name: str) -> bool:
    """Ask; whoever cannot be asked wants it to go on."""
    if not is_terminal():
        return False
    try:
        return typer.confirm(f"\nstop job {name}?", default=False, err=True)
    except (typer.Abort, KeyboardInterrupt):
        return False

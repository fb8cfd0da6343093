"""The app: its commands, and how errors leave the process."""

from __future__ import annotations

import errno
import sys
import traceback
from typing import Annotated, Any

import typer
import typer.core

from distspectral import __version__, logs
from distspectral.cli import (
    bench,
    dedup,
    demo,
    embed,
    evaluate,
    export,
    graph,
    inspect,
    plan,
    recut,
    run,
    sample,
    serve,
    stage,
    submit,
    tiles,
    validate,
    view,
)
from distspectral.cli.console import print_error
from distspectral.cli.ending import STOPPED, ends_when_told
from distspectral.errors import DistSpectralError, first_line
from distspectral.secrets import redacted

EXIT_FAILED = 1
EXIT_REFUSED = 2
EXIT_STOPPED = 130

END_THEMSELVES = ("serve", "submit")
"""Commands that do something of their own when they are told to end."""


class Group(typer.core.TyperGroup):
    """Turns our errors into one line and an exit code: 2 refused or failed, 128 and the signal's number if stopped."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except BaseException as error:
            if ctx.obj is not None and (number := ctx.obj.told(error)):  # whatever came of it
                ctx.obj.leave(number)
            if isinstance(error, KeyboardInterrupt):
                typer.echo(STOPPED, err=True)
                raise typer.Exit(EXIT_STOPPED) from None
            message = _message(error)
            if message is None or ctx.params["debug"]:
                raise
            if logs.is_written():
                logs.LOGGER.error(redacted(message))
            print_error(message)
            raise typer.Exit(EXIT_REFUSED) from None


def _message(error: BaseException) -> str | None:
    """Return the line that tells of an error of ours, or of what a disk or an object store raised; None of others."""
    if isinstance(error, DistSpectralError):
        return str(error)
    arrow = sys.modules.get("pyarrow")
    is_arrows = arrow is not None and type(error) is arrow.ArrowException  # of what Arrow has no kind for
    if is_arrows or (isinstance(error, OSError) and error.errno != errno.EPIPE):  # a closed pipe is none
        return f"{first_line(error)}; the place cannot be reached, read or written now"
    return None


app = typer.Typer(
    name="distspectral",
    cls=Group,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback(help="Spectral embedding and clustering for datasets that do not fit.")
def options(
    ctx: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    log: Annotated[
        str | None,
        typer.Option(
            "--log",
            envvar="DISTSPECTRAL_LOG",
            metavar="FILE",
            help="Append a JSON object per event; - for stderr. Ray's workers write theirs to their own stderr.",
        ),
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Take the options that stand before the command; ``Group`` and the eager callback read the others."""
    if log is not None:
        logs.write_log(log)
    if ctx.invoked_subcommand not in END_THEMSELVES:
        ctx.obj = ctx.with_resource(ends_when_told())


for module in (
    run,
    submit,
    stage,
    view,
    embed,
    recut,
    evaluate,
    dedup,
    sample,
    tiles,
    export,
    graph,
    serve,
    inspect,
    validate,
    plan,
    demo,
    bench,
):
    module.register(app)


def main() -> None:
    """Run the command line and exit; no traceback shows a secret."""
    try:
        app(prog_name="distspectral")
    except Exception:
        sys.stderr.write(redacted(traceback.format_exc()))
        sys.exit(EXIT_FAILED)

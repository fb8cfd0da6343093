"""The app: its commands, and how errors leave the process."""

from __future__ import annotations

import errno
import sys
import traceback
from typing import Annotated, Any

import typer
import typer.core

from distspectral import __version__, logs
from distspectral.cli import bench, demo, embed, evaluate, export, inspect, plan, run, serve, stage, submit, validate
from distspectral.cli.console import print_error
from distspectral.errors import DistSpectralError, first_line
from distspectral.secrets import redacted

EXIT_FAILED = 1
EXIT_REFUSED = 2
EXIT_STOPPED = 130


class Group(typer.core.TyperGroup):
    """Turns our errors into one line and an exit code: 2 refused or failed, 130 stopped by Ctrl-C."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except DistSpectralError as error:
            if ctx.params["debug"]:
                raise
            if logs.is_written():
                logs.LOGGER.error(redacted(str(error)))
            print_error(str(error))
            raise typer.Exit(EXIT_REFUSED) from None
        except Exception as error:
            if ctx.params["debug"] or not _is_of_storage(error):
                raise
            print_error(f"{first_line(error)}; the place cannot be reached, read or written now")
            raise typer.Exit(EXIT_REFUSED) from None
        except KeyboardInterrupt:
            print_error("stopped; run again to continue")
            raise typer.Exit(EXIT_STOPPED) from None


def _is_of_storage(error: Exception) -> bool:
    """Whether a disk or an object store raised the error, by way of Arrow perhaps; a closed pipe is none."""
    arrow = sys.modules.get("pyarrow")
    is_arrows = arrow is not None and type(error) is arrow.ArrowException  # of what Arrow has no kind for
    return is_arrows or (isinstance(error, OSError) and error.errno != errno.EPIPE)


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


for module in (run, submit, stage, embed, evaluate, export, serve, inspect, validate, plan, demo, bench):
    module.register(app)


def main() -> None:
    """Run the command line and exit; no traceback shows a secret."""
    try:
        app(prog_name="distspectral")
    except Exception:
        sys.stderr.write(redacted(traceback.format_exc()))
        sys.exit(EXIT_FAILED)

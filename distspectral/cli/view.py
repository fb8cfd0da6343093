"""``distspectral view RUN``: the page of a finished run in the browser."""

from __future__ import annotations

import os
import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from distspectral.cli.console import print_note
from distspectral.errors import MissingArtifactError

RunPath = Annotated[str, typer.Argument(metavar="RUN", help="Directory of a finished run.", show_default=False)]
PathOnly = Annotated[bool, typer.Option("--path", help="Print where the page is, and open nothing.")]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("view")(view)


def view(run: RunPath, path: PathOnly = False) -> None:
    """Open a run's page, report.html, in the browser; where there is none, or the run is far, say where it is."""
    from distspectral.report.metrics import PAGE
    from distspectral.storage.artifact.directory import Artifact
    from distspectral.storage.filesystems import absolute

    root = Artifact(absolute(run))
    if not root.has(PAGE):
        raise MissingArtifactError(f"{run}: has no {PAGE}; `distspectral run CONFIG` makes one at its end")
    page = root.mappable(PAGE)
    if page is not None and not path and _has_browser() and webbrowser.open(Path(page).as_uri()):
        print_note(f"opened {page}")
    else:
        print_note(page or f"{root.uri}/{PAGE}")


def _has_browser() -> bool:
    """Whether a window may open here: without a display, some systems start a browser in the terminal."""
    return os.name == "nt" or os.uname().sysname == "Darwin" or bool({"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys())

"""What several benchmarks take and tell."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from distspectral.cli.console import text

Seeds = Annotated[list[int] | None, typer.Option("--seed", help="A seed; may be repeated. (default: 0, 1, 2)")]
Root = Annotated[
    str | None, typer.Option("--root", metavar="DIR", help="Keep data and runs here, and go on. (default: nowhere)")
]
LabelledFolders = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[FOLDER]...",
        help="Shards with the columns vector and label, folders of such folders, and scikit-learn's digits, moons or "
        "uneven-blobs. (default: these three)",
        show_default=False,
    ),
]
BaselinesEnv = Annotated[
    Path,
    typer.Option(
        "--baselines-env",
        metavar="DIR",
        help="Virtual environment of the baselines; made if absent, taken as it is if it was made by somebody else.",
    ),
]


def tell(facts: Mapping[str, Any]) -> None:
    """Say on stderr what has just been measured."""
    typer.echo(text(facts), err=True)


@contextlib.contextmanager
def folder_of_results(root: str | None) -> Iterator[str]:
    """Yield the directory asked for, or one that vanishes again."""
    from distspectral.storage.filesystems import absolute

    if root is not None:
        if "://" not in root:
            Path(root).mkdir(parents=True, exist_ok=True)
        yield absolute(root)
        return
    with tempfile.TemporaryDirectory(prefix="distspectral-bench-") as folder:
        yield folder

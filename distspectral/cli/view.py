"""``distspectral view RUN``: the page of a finished run in the browser, or its tiles in Embedding Atlas."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from distspectral.cli.console import print_note
from distspectral.errors import FingerprintMismatchError, MissingArtifactError, MissingDependencyError

if TYPE_CHECKING:
    from distspectral.storage.artifact.directory import Artifact

ATLAS = "embedding-atlas"
ATLAS_ROWS = 2_000_000
"""Rows handed to the atlas unless told otherwise: it reads them into memory, and browsers draw a few million."""

RunPath = Annotated[str, typer.Argument(metavar="RUN", help="Directory of a finished run.", show_default=False)]
PathOnly = Annotated[bool, typer.Option("--path", help="Print where the page is, and open nothing.")]
WithAtlas = Annotated[
    bool, typer.Option("--atlas", help="Serve the coarse levels of RUN/tiles by Embedding Atlas, until stopped.")
]
Rows = Annotated[int, typer.Option("--rows", min=1, help="Of --atlas: as many levels as have no more rows together.")]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("view")(view)


def view(run: RunPath, path: PathOnly = False, atlas: WithAtlas = False, rows: Rows = ATLAS_ROWS) -> None:
    """Open a run's page, report.html, in the browser; where there is none, or the run is far, say where it is.

    With --atlas, walk through the tiles that `distspectral tiles` has written: places, clusters, labels by level of the
    tree and carried columns, to filter by any of them. Embedding Atlas is installed for itself.
    """
    from distspectral.stages.finished_run import PAGE
    from distspectral.storage.artifact.directory import Artifact
    from distspectral.storage.filesystems import absolute

    if atlas:
        raise typer.Exit(_serve(Artifact(absolute(run)), rows))
    root = Artifact(absolute(run))
    if not root.has(PAGE):
        raise MissingArtifactError(
            f"{run}: has no {PAGE}; `distspectral run CONFIG` makes one at its end, `distspectral report {run}` of a "
            "finished run"
        )
    page = root.mappable(PAGE)
    if page is not None and not path and _has_browser() and webbrowser.open(Path(page).as_uri()):
        print_note(f"opened {page}")
    else:
        print_note(page or f"{root.uri}/{PAGE}")


def atlas_words(tiles: Artifact, most_rows: int) -> list[str]:
    """Return what the atlas is started with: files of the coarse levels, columns of places and text, and the labels.

    Args:
        tiles: finished ``tiles`` artifact.
        most_rows: as many levels as have no more rows together, at least the first.

    Raises:
        ArtifactError: the tiles are not finished, or damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    from distspectral.storage.filesystems import join
    from distspectral.tiles.plan import LABELS

    manifest = tiles.require(tiles.manifest().fingerprint)
    levels, n_levels, n_rows = manifest.properties["levels"], 0, 0
    while n_levels < len(levels) and (not n_levels or n_rows + levels[n_levels]["rows"] <= most_rows):
        n_rows += levels[n_levels]["rows"]
        n_levels += 1
    files = [shard.name for shard in manifest.shards if shard.details["level"] < n_levels]
    with tiles.filesystem.open_input_file(tiles.file_path(files[0])) as stream:
        schema = pq.read_schema(stream)
    kinds = {name: schema.field(name).type for name in manifest.properties["carried"]}
    texts = [name for name, kind in kinds.items() if kind in (pa.string(), pa.large_string())]
    print_note(f"{n_rows:,} of {manifest.n_rows:,} rows: {n_levels} of {len(levels)} levels")
    labels = join(tiles.uri, LABELS)
    text = ["--text", texts[0]] if texts else []
    return [*(join(tiles.uri, name) for name in files), "--x", "x", "--y", "y", "--labels", labels, *text]


def _serve(root: Artifact, most_rows: int) -> int:
    """Serve a run's tiles by the atlas until it is stopped; return its exit code.

    Raises:
        MissingDependencyError: the atlas is not installed.
        MissingArtifactError: there are no tiles.
        FingerprintMismatchError: they are of an earlier tree.
    """
    from distspectral.stages.finished_run import TILES, of_earlier_trees
    from distspectral.storage.artifact.directory import MANIFEST

    program = shutil.which(ATLAS) or shutil.which(ATLAS, path=str(Path(sys.executable).parent))
    if program is None:
        raise MissingDependencyError(f"{ATLAS} is not installed: pip install {ATLAS}, in an environment of its own")
    tiles = root.child(TILES)
    if not tiles.has(MANIFEST):
        raise MissingArtifactError(f"{root.uri}: has no tiles; `distspectral tiles {root.uri}` writes them")
    if TILES in of_earlier_trees(root):
        raise FingerprintMismatchError(
            f"{tiles.uri}: was made of an earlier tree of this run; `distspectral tiles {root.uri}` makes it anew"
        )
    return subprocess.run([program, *atlas_words(tiles, most_rows)]).returncode


def _has_browser() -> bool:
    """Whether a window may open here: without a display, some systems start a browser in the terminal."""
    return os.name == "nt" or os.uname().sysname == "Darwin" or bool({"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys())

"""``distspectral tiles RUN``: the map of a finished run as Parquet tiles by level of detail, for viewers of many."""

from __future__ import annotations

import contextlib
from typing import Annotated

import typer

from distspectral.cli.console import StageProgress, print_json, print_note, print_table, record_table, watched
from distspectral.cli.options import AsJson, Local, Quiet, RunPath, engine_of_run
from distspectral.errors import ConfigError

Layers = Annotated[
    str | None,
    typer.Option(
        "--layers",
        metavar="C,C,...",
        help="Clusters of each layer of labels, by cuts of the tree. (default: from all leaves down to a few, that of "
        "the run among them)",
        show_default=False,
    ),
]
Carry = Annotated[
    str | None,
    typer.Option("--carry", metavar="A,B,...", help="Columns of data.carry to take over, or all. (default: none)"),
]
Names = Annotated[
    str | None,
    typer.Option("--names", metavar="FILE", help="Names of clusters, as the report's page saves them."),
]
OutputPath = Annotated[
    str | None, typer.Option("--out", metavar="DIR", help="Where the files go. (default: RUN/tiles)")
]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("tiles")(tiles)


def tiles(
    run: RunPath,
    layers: Layers = None,
    carry: Carry = None,
    names: Names = None,
    out: OutputPath = None,
    local: Local = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Write all rows of a run's map by level of detail, with labels by level of its tree, to RUN/tiles.

    Level 0 shows some thousand rows of the whole map, each next one splits the tiles of the one before in four. Every
    row is on one level. Labels are whole numbers, the finest layer first, -1 for outliers. Run again, it goes on where
    it was stopped. Shards are handed to the cluster that the run's config names.
    """
    from distspectral.stages.embed import EMBED
    from distspectral.storage.artifact.directory import Artifact
    from distspectral.storage.artifact.holding import Hold
    from distspectral.tiles.build import Wish, make_tiles, tiles_output
    from distspectral.tiles.layers import read_names
    from distspectral.tiles.mapped_run import MappedRun

    root = Artifact(run)
    mapped = MappedRun.of(root)
    carried = tuple(mapped.manifest.properties.get("carried", ()))
    chosen = carried if carry == "all" else tuple(filter(None, (carry or "").split(",")))
    wish = Wish(_numbers(layers), chosen, read_names(names) if names else {})
    artifact = Artifact(out) if out else root.child("tiles")
    output = tiles_output(mapped, wish, artifact)
    engine = engine_of_run(root, local)
    with Hold(artifact, f"tiles of {root.uri}"), StageProgress(quiet) as progress, contextlib.closing(engine):
        if not artifact.is_current(output.fingerprint):
            engine.start([EMBED])
        manifest = make_tiles(mapped, wish, output, watched(progress, engine.mapper(EMBED)))
    if as_json:
        print_json(manifest.model_dump())
        return
    found = manifest.properties
    print_table(record_table(f"Tiles of {run}", {f"level {at}": one for at, one in enumerate(found["levels"])}))
    sizes = ", ".join(f"label_{number}: {size:,}" for number, size in enumerate(found["layers"]))
    print_note(f"clusters by layer: {sizes}")
    print_note(f"written to {artifact.uri}; `distspectral view {run} --atlas` walks through them")


def _numbers(text: str | None) -> tuple[int, ...] | None:
    """Return the numbers of a list.

    Raises:
        ConfigError: it is none.
    """
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise ConfigError(f"--layers: is {text}, expected numbers of clusters such as 100,20,4")
    return tuple(map(int, parts))

"""``distspectral embed``: every row of a run, or other rows by the same trained model."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated

import typer

from distspectral.cli.console import StageProgress, print_json, print_manifest, print_note
from distspectral.cli.options import AsJson, ConfigPath, Local, Overrides, Quiet, engine_of, load
from distspectral.cli.stage import checked_pipeline, stage
from distspectral.errors import ConfigError

if TYPE_CHECKING:
    from distspectral.stages.stage import Unfinished
    from distspectral.storage.artifact.manifest import Manifest

SourcePath = Annotated[
    str | None, typer.Option("--source", metavar="PATH", help="Embed these shards instead of data.path.")
]
OutputPath = Annotated[str | None, typer.Option("--output", metavar="DIR", help="Where the rows of --source go.")]
Columns = Annotated[
    str | None,
    typer.Option(
        "--columns",
        metavar="A,B,...",
        help="Write these columns beside the id, instead of embed.columns, which knows the same names.",
    ),
]
ShardRange = Annotated[
    str | None,
    typer.Option(
        "--shard-range",
        metavar="FIRST:LAST",
        help="Embed these shards only, LAST excluded; several processes can fill one output, and the one that finds "
        "no shard missing finishes it.",
    ),
]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("embed")(embed)


def embed(
    config: ConfigPath,
    overrides: Overrides = None,
    source: SourcePath = None,
    output: OutputPath = None,
    columns: Columns = None,
    shard_range: ShardRange = None,
    local: Local = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Embed every row, and cluster it; with --source and --output other rows, by the same trained model."""
    if (source is None) != (output is None):
        raise ConfigError("--source and --output: give both to embed other rows, or neither")
    if columns is not None:
        overrides = [*(overrides or ()), f"embed.columns=[{columns}]"]
    shards = None if shard_range is None else _range(shard_range)
    if shards is None and (source is None or output is None):
        stage("embed", config, overrides, local, quiet, as_json)
        return
    from distspectral.config.check import check_output
    from distspectral.storage.artifact.manifest import Manifest
    from distspectral.storage.source.dataset import Source

    loaded = load(config, overrides)
    engine = engine_of(loaded, local)
    done: Manifest | Unfinished
    try:
        with StageProgress(quiet) as progress:
            other = None if source is None else Source.open(loaded.data.model_copy(update={"path": source}))
            if other is not None:
                check_output(other, str(output))
            pipeline = checked_pipeline(loaded, engine, progress)
            if shards is not None:
                done = pipeline.embed_part(shards, other, output)
            else:
                assert other is not None, "the other rows have been opened"
                done = pipeline.embed_other(other, str(output))
    finally:
        engine.close()
    if isinstance(done, Manifest):
        print_manifest(done, as_json)
    else:
        _show_unfinished(done, as_json)


def _range(text: str) -> range:
    """Return the numbers that ``FIRST:LAST`` means.

    Raises:
        ConfigError: it means none.
    """
    first, colon, last = text.partition(":")
    if not (colon and first.isdecimal() and last.isdecimal() and int(first) < int(last)):
        raise ConfigError(f"--shard-range: is {text}, expected FIRST:LAST such as 0:100, the first below the last")
    return range(int(first), int(last))


def _show_unfinished(done: Unfinished, as_json: bool) -> None:
    if as_json:
        print_json({"complete": False, **dataclasses.asdict(done)})
        return
    print_note(
        f"unfinished: {done.n_done:,} of {done.n_shards:,} shards are there; embed the others, or run the same command "
        "without --shard-range once all processes have ended"
    )

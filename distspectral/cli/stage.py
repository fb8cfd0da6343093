"""One command per stage: its inputs must be there and made from this config; a current stage is skipped."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any

import typer

from distspectral.cli.console import StageProgress, manifest_table, print_json, print_note, print_table
from distspectral.cli.options import AsJson, ConfigPath, Local, Overrides, Quiet, engine_of, load
from distspectral.cli.run import show
from distspectral.errors import ConfigError

if TYPE_CHECKING:
    from distspectral.config import RunConfig
    from distspectral.orchestration.engine import Engine
    from distspectral.orchestration.observer import Observer
    from distspectral.orchestration.pipeline import Pipeline
    from distspectral.stages.embed import Unfinished
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
        help="Write these columns beside the id, instead of embed.columns: embedding, cluster, distance, "
        "probabilities, nearest_clusters.",
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
    """Add the commands."""
    for name, purpose in (
        ("pack", "Check the source shards and pack them for random access."),
        ("represent", "Train the autoencoder and encode every row."),
        ("graph", "Find every row's neighbours and weigh the edges."),
        ("siamese", "Train the Siamese network and weigh the edges by its distances."),
        ("train", "Train the network: on the graph's edges, or on labels."),
        ("calibrate", "Make the network's outputs eigenfunctions, exactly orthonormal over the dataset."),
        ("cluster", "Find the clusters' centroids."),
    ):
        app.command(name, help=purpose)(_command(name))
    app.command("embed")(embed)
    app.command("report")(report)


def _command(name: str) -> Any:
    def command(
        config: ConfigPath,
        overrides: Overrides = None,
        local: Local = False,
        quiet: Quiet = False,
        as_json: AsJson = False,
    ) -> None:
        _run_stage(name, config, overrides, local, quiet, as_json)

    return command


def _run_stage(name: str, path: ConfigPath, overrides: Overrides, local: bool, quiet: bool, as_json: bool) -> None:
    config = load(path, overrides)
    engine = engine_of(config, local)
    try:
        with StageProgress(quiet) as progress:
            manifest = _pipeline(config, engine, progress).command(name)
    finally:
        engine.close()
    _show(manifest, as_json)


def _pipeline(config: RunConfig, engine: Engine, observer: Observer) -> Pipeline:
    """Return the pipeline of a config that passed all checks."""
    from distspectral.config import check
    from distspectral.orchestration.pipeline import Pipeline
    from distspectral.storage.source.dataset import Source

    source = Source.open(config.data)
    check(config, source)
    return Pipeline(config, source, engine, observer)


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
        _run_stage("embed", config, overrides, local, quiet, as_json)
        return
    from distspectral.storage.source.dataset import Source

    loaded = load(config, overrides)
    engine = engine_of(loaded, local)
    done: Manifest | Unfinished
    try:
        with StageProgress(quiet) as progress:
            other = None if source is None else Source.open(loaded.data.model_copy(update={"path": source}))
            pipeline = _pipeline(loaded, engine, progress)
            if shards is not None:
                done = pipeline.embed_part(shards, other, output)
            else:
                assert other is not None, "the other rows have been opened"
                done = pipeline.embed_other(other, str(output))
    finally:
        engine.close()
    from distspectral.storage.artifact.manifest import Manifest

    if isinstance(done, Manifest):
        _show(done, as_json)
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


def report(config: ConfigPath, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Write metrics.json and report.html anew from the finished artifacts."""
    from distspectral.orchestration.engine import LocalEngine
    from distspectral.orchestration.observer import SilentObserver

    loaded = load(config, overrides)
    show(loaded, _pipeline(loaded, LocalEngine(), SilentObserver()).report(), as_json)


def _show(manifest: Manifest, as_json: bool) -> None:
    if as_json:
        print_json(manifest.model_dump())
    else:
        print_table(manifest_table(manifest))

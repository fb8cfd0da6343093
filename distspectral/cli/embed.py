"""``distspectral embed``: every row of a run, or other rows by the same trained model."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any

import typer

from distspectral.cli.console import StageProgress, print_json, print_manifest, print_note
from distspectral.cli.options import AsJson, Local, Overrides, Quiet, RunOrConfig, engine_of, is_config, load, load_run
from distspectral.cli.stage import checked_pipeline, stage
from distspectral.errors import ConfigError, DistSpectralError

if TYPE_CHECKING:
    from distspectral.stages.stage import Unfinished
    from distspectral.storage.artifact.manifest import Manifest

NewPath = Annotated[
    str | None, typer.Argument(metavar="[NEW]", help="Shards to embed by the run's model.", show_default=False)
]
OutputPath = Annotated[
    str | None,
    typer.Option("--output", metavar="DIR", help="Where the rows of NEW go. (default: in RUN/embedded)"),
]
Column = Annotated[str | None, typer.Option("--column", metavar="NAME", help="Vector column of NEW.")]
IdColumn = Annotated[str | None, typer.Option("--id-column", metavar="NAME", help="Ids of NEW; '' for row numbers.")]
LabelColumn = Annotated[
    str | None,
    typer.Option(
        "--label-column", metavar="NAME", help="Labels of NEW, to evaluate by. (default: none, or a YAML file's)"
    ),
]
Carry = Annotated[
    str | None,
    typer.Option("--carry", metavar="A,B,...", help="Columns of NEW that the output takes over; all, or '' for none."),
]
OPTIONS = {
    "data.path": "NEW",
    "data.column": "--column",
    "data.id_column": "--id-column",
    "data.label_column": "--label-column",
    "data.carry": "--carry",
    "remove data.column": "give --column vector",
    "remove data.id_column": "give --id-column ''",
    "remove data.label_column": "give --label-column ''",
}
"""What keys of the config are called here, where what is not given is the run's and so cannot be removed."""
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
    run: RunOrConfig,
    new: NewPath = None,
    overrides: Overrides = None,
    output: OutputPath = None,
    column: Column = None,
    id_column: IdColumn = None,
    label_column: LabelColumn = None,
    carry: Carry = None,
    columns: Columns = None,
    shard_range: ShardRange = None,
    local: Local = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Embed and cluster NEW rows by the model of a finished run, which is all that is needed; or a run's own rows."""
    is_file = is_config(run)
    is_told = is_file or bool(overrides)  # more than the run knows itself
    if columns is not None:
        _require_known(columns)
        overrides = [*(overrides or ()), f"embed.columns=[{columns}]"]
    shards = None if shard_range is None else _range(shard_range)
    if new is None:
        if asked := [name for name, value in (("--output", output), ("--carry", carry)) if value is not None]:
            raise ConfigError(f"{asked[0]}: is for other rows; name their shards behind the run")
        _embed_own(run, overrides, shards, local, quiet, as_json)
        return
    from distspectral.config.check import check_output
    from distspectral.orchestration.new_rows import embed_new_rows, embed_new_shards
    from distspectral.orchestration.opened_run import finished_run
    from distspectral.storage.source.dataset import Source

    config = load_run(run, overrides)
    told: dict[str, Any] = {"path": new}
    if label_column is not None or not is_file:
        told["label_column"] = label_column or None
    if column is not None:
        told["column"] = column
    if id_column is not None:
        told["id_column"] = id_column or None
    if carry is not None:
        told["carry"] = "all" if carry == "all" else tuple(filter(None, carry.split(",")))
    config = config.model_copy(update={"data": config.data.model_copy(update=told)})
    place = output or _default_place(config.root, new)
    engine = engine_of(config, local)
    try:
        with StageProgress(quiet) as progress:
            source = Source.open(config.data)
            check_output(source, place)
            finished = finished_run(config, engine, progress, as_told=is_told)
            done = (
                embed_new_rows(finished, source, place)
                if shards is None
                else embed_new_shards(finished, source, place, shards)
            )
    except DistSpectralError as error:
        raise error.in_words(OPTIONS) from error
    finally:
        engine.close()
    _show(done, as_json)
    if not as_json:
        print_note(f"rows: {place}")


def _embed_own(
    config: str, overrides: list[str] | None, shards: range | None, local: bool, quiet: bool, as_json: bool
) -> None:
    path = Path(config)
    if not path.is_file():
        raise ConfigError(f"{config}: is no YAML file; name one, or behind the run's directory the rows to embed")
    if shards is None:
        stage("embed", path, overrides, local, quiet, as_json)
        return
    loaded = load(path, overrides)
    engine = engine_of(loaded, local)
    try:
        with StageProgress(quiet) as progress:
            done = checked_pipeline(loaded, engine, progress).embed_part(shards)
    finally:
        engine.close()
    _show(done, as_json)


def _require_known(columns: str) -> None:
    """Refuse names that are no columns of an output.

    Raises:
        ConfigError: just that.
    """
    from distspectral.embedding.columns import MEANINGS

    for name in filter(None, (one.strip() for one in columns.split(","))):
        if name not in MEANINGS:
            (nearest,) = difflib.get_close_matches(name, MEANINGS, n=1, cutoff=0.0)
            raise ConfigError(f"--columns: {name!r} is none of {', '.join(MEANINGS)}; did you mean {nearest!r}?")


def _default_place(root: str, new: str) -> str:
    """Return a place of these rows' own: the same command goes on where it was interrupted."""
    from distspectral.storage.filesystems import absolute, join

    place = absolute(new)
    name = PurePosixPath(place).name.partition(".")[0].strip("*?[]") or "rows"
    return join(root, f"embedded/{name}-{hashlib.sha256(place.encode()).hexdigest()[:8]}")


def _range(text: str) -> range:
    """Return the numbers that ``FIRST:LAST`` means.

    Raises:
        ConfigError: it means none.
    """
    first, colon, last = text.partition(":")
    if not (colon and first.isdecimal() and last.isdecimal() and int(first) < int(last)):
        raise ConfigError(f"--shard-range: is {text}, expected FIRST:LAST such as 0:100, the first below the last")
    return range(int(first), int(last))


def _show(done: Manifest | Unfinished, as_json: bool) -> None:
    from distspectral.storage.artifact.manifest import Manifest

    if isinstance(done, Manifest):
        print_manifest(done, as_json)
    else:
        _show_unfinished(done, as_json)


def _show_unfinished(done: Unfinished, as_json: bool) -> None:
    if as_json:
        print_json({"complete": False, **dataclasses.asdict(done)})
        return
    print_note(
        f"unfinished: {done.n_done:,} of {done.n_shards:,} shards are there; embed the others, or run the same command "
        "without --shard-range once all processes have ended"
    )

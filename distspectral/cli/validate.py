"""``distspectral validate`` and ``distspectral schema``: what a config may say, and whether this one can run."""

from __future__ import annotations

import typer

from distspectral.cli.console import print_json, print_note
from distspectral.cli.options import AsJson, ConfigPath, Overrides, load
from distspectral.text import plural


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("validate")(validate)
    app.command("schema")(schema)


def validate(config: ConfigPath, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Refuse all that can be refused before a run: keys, values, shards' headers, root, libraries.

    Starts nothing and runs no code of a network.trunk, which is looked for but not imported.
    """
    from distspectral.config import check
    from distspectral.storage.source.dataset import Source

    loaded = load(config, overrides)
    source = Source.open(loaded.data)
    check(loaded, source, imports=False)
    if as_json:
        facts = {"n_rows": source.n_rows, "dim": source.dim, "n_shards": len(source.shards)}
        print_json({"valid": True, **facts, "config": loaded.model_dump(mode="json")})
        return
    print_note(
        f"{config}: valid; {plural(source.n_rows, 'row')} of width {source.dim:,} in "
        f"{plural(len(source.shards), 'shard')}, "
        f"{loaded.recipe(source.dim, source.n_rows).learned}, artifacts go to {loaded.root}"
    )
    if source.passed_over:
        print_note(f"no features, for they hold no numbers: {', '.join(source.passed_over)}")


def schema() -> None:
    """Print the JSON schema of a config."""
    from distspectral.config import RunConfig

    print_json(RunConfig.model_json_schema())

"""``distspectral sample RUN``: rows of a finished run, evenly over its tree or its clusters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, cast

import typer

from distspectral.cli.console import fact_table, print_json, print_table
from distspectral.cli.options import AsJson, RunPath, require_apart
from distspectral.errors import ConfigError

if TYPE_CHECKING:
    from distspectral.curation.sample import Balance

Rows = Annotated[int, typer.Option("--rows", metavar="M", help="Rows to draw.", show_default=False)]
Over = Annotated[
    str,
    typer.Option(
        "--balance",
        metavar="NAME",
        help="tree: level by level as evenly as sizes allow; clusters: over the clusters alone; none: all rows alike.",
    ),
]
Replace = Annotated[bool, typer.Option("--replace", help="A row may be drawn more than once.")]
Seed = Annotated[int, typer.Option("--seed", metavar="S", min=0, help="Of the draw.")]
OutputPath = Annotated[
    str | None, typer.Option("--out", metavar="FILE", help="Parquet file to write. (default: RUN/sample.parquet)")
]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("sample")(sample)


def sample(
    run: RunPath,
    rows: Rows,
    balance: Over = "tree",
    replace: Replace = False,
    seed: Seed = 0,
    out: OutputPath = None,
    as_json: AsJson = False,
) -> None:
    """Draw rows of a finished run, balanced over its tree; each has its weight, the rows for which it stands."""
    from typing import get_args

    from distspectral.curation.sample import Balance
    from distspectral.curation.sample import sample as draw
    from distspectral.spectral.balance import evenness
    from distspectral.storage.artifact.directory import Artifact
    from distspectral.storage.filesystems import join

    if balance not in get_args(Balance):
        raise ConfigError(f"--balance: is {balance}; choose from {', '.join(get_args(Balance))}")
    place = out or join(run, "sample.parquet")
    if out is not None:
        require_apart([out], run, "--out")
    folder, _, name = place.rpartition("/")
    drawn = draw(Artifact(run), rows, cast("Balance", balance), seed, Artifact(folder or "."), name, replace=replace)
    facts = {
        "rows": drawn.n_rows,
        "all_rows": drawn.n_all_rows,
        "leaves_drawn": drawn.groups_drawn,
        "leaves": drawn.groups,
        "evenness": evenness(drawn.clusters),
        "all_rows_evenness": evenness(drawn.all_clusters),
        "path": place,
    }
    if as_json:
        print_json(facts)
        return
    unit = {"tree": "leaves", "clusters": "clusters", "none": ""}[balance]
    over = [(f"{unit} drawn from", f"{drawn.groups_drawn:,} of {drawn.groups:,}")] if unit else []
    lines = [
        ("rows", f"{drawn.n_rows:,} of {drawn.n_all_rows:,}"),
        *over,
        ("evenness over clusters", f"{facts['evenness']:.3f}; of all rows {facts['all_rows_evenness']:.3f}"),
        ("written to", place),
    ]
    print_table(fact_table(f"Sample of {run}", lines))

"""``distspectral bench quality``: clusters beside those of other methods, on labelled datasets."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from distspectral.cli.console import print_json, print_table
from distspectral.cli.options import AsJson, Local, Overrides, engine_of

Folder = Annotated[
    str,
    typer.Argument(
        metavar="FOLDER",
        help="Shards with the columns vector and label, or a folder of such folders.",
        show_default=False,
    ),
]
Seeds = Annotated[list[int] | None, typer.Option("--seed", help="A seed; may be repeated. [default: 0, 1, 2]")]
Method = Annotated[
    list[str] | None,
    typer.Option(
        "--method",
        metavar="NAME",
        help="exact, k-means, scikit-learn, umap or spectralnet; may be repeated; none: ours alone. "
        "[default: all but the last]",
    ),
]
Root = Annotated[
    str | None,
    typer.Option("--root", metavar="DIR", help="Keep our runs here, and go on with them. [default: nowhere]"),
]
HeldOut = Annotated[int, typer.Option("--held-out", min=0, help="Last shards, embedded but not trained on.")]


def register(group: typer.Typer) -> None:
    """Add the benchmark to the group."""
    group.command("quality")(quality)


def quality(
    folder: Folder,
    seeds: Seeds = None,
    methods: Method = None,
    overrides: Overrides = None,
    held_out: HeldOut = 0,
    root: Root = None,
    local: Local = False,
    as_json: AsJson = False,
) -> None:
    """Cluster labelled datasets with one config and compare with k-means, scikit-learn, UMAP and exact eigenvectors."""
    from distspectral.bench.quality import DEFAULT_METHODS, compare_quality, summary

    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="distspectral-quality-") as scratch:
        for dataset in _datasets(folder):
            name = Path(dataset).name
            found = compare_quality(
                dataset,
                f"{root or scratch}/{name}",
                (0, 1, 2) if seeds is None else seeds,
                DEFAULT_METHODS if methods is None else [m for m in methods if m != "none"],
                overrides or (),
                lambda config: engine_of(config, local),
                held_out,
                lambda result: _tell(result),
            )
            results[name] = {"results": found, "summary": summary(found)}
            if not as_json:
                print_table(_table(name, results[name]["summary"]))
    if as_json:
        print_json(results)


def _datasets(folder: str) -> list[str]:
    """Return the folder itself, or the folders of shards in it."""
    local = Path(folder)
    inner = [str(child) for child in sorted(local.iterdir()) if child.is_dir()] if local.is_dir() else []
    has_shards = local.is_dir() and any(child.is_file() and child.suffix != ".md" for child in local.iterdir())
    return inner if inner and not has_shards else [folder]


def _tell(result: dict[str, Any]) -> None:
    typer.echo(
        f"{result['method']}, seed {result['seed']}: ACC {result['acc']:.4f}, NMI {result['nmi']:.4f} in "
        f"{result['seconds']:.0f} s",
        err=True,
    )


def _table(name: str, rows: dict[str, dict[str, Any]]) -> Any:
    from rich.table import Table

    table = Table(title=f"{name}: mean and standard deviation over seeds", title_justify="left")
    for heading in ("method", "rows", "ACC", "NMI", "ARI", "seconds"):
        table.add_column(heading)
    for method, row in rows.items():
        scores = (f"{row[key][0]:.4f} ({row[key][1]:.4f})" for key in ("acc", "nmi", "ari"))
        table.add_row(method, f"{row['n_rows']:,}", *scores, f"{row['seconds'][0]:.0f}")
    return table

"""``distspectral bench map``: the map beside other layouts of the same rows."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Annotated

import typer

from distspectral.cli.bench_options import BaselinesEnv, LabelledFolders, Root, Seeds, folder_of_results, tell
from distspectral.cli.console import print_json, print_note
from distspectral.cli.options import AsJson, Local, Overrides, engine_of

LayoutMethods = Annotated[
    list[str] | None,
    typer.Option(
        "--method",
        metavar="NAME",
        help="distspectral, eigenfunctions, umap, parametric-umap, opentsne or pacmap; may be repeated. (default: the "
        "first three)",
    ),
]
MostRows = Annotated[
    int | None, typer.Option("--rows", min=100, help="Of a set at most, a seventh held out. (default: all)")
]


def bench_map(
    folders: LabelledFolders = None,
    seeds: Seeds = None,
    methods: LayoutMethods = None,
    overrides: Overrides = None,
    rows: MostRows = None,
    root: Root = None,
    baselines_env: BaselinesEnv = Path("~/.cache/distspectral/baselines"),
    local: Local = False,
    as_json: AsJson = False,
) -> None:
    """Lay labelled sets out in the plane by the map and by other methods; print a table in Markdown.

    A seventh of the rows is held out and placed afterwards. Results are kept in ROOT/maps.jsonl; those that are there
    already are not made again.
    """
    from distspectral.bench.baselines import LAYOUTS, ensure_environment
    from distspectral.bench.map import run_maps, tables
    from distspectral.bench.suite import OWN, find_sets

    chosen = methods or ("distspectral", "eigenfunctions", "umap")
    foreign = [name for name in chosen if name in LAYOUTS]
    with folder_of_results(root) as folder:
        sets = find_sets(folders or OWN, folder, 0, lambda told: typer.echo(told, err=True))
        python = ensure_environment(baselines_env.expanduser(), foreign) if foreign else None
        asked = (0, 1, 2) if seeds is None else seeds
        engine = functools.partial(engine_of, local=local)
        found = run_maps(sets, Path(folder), asked, chosen, overrides or (), engine, rows, python, tell)
    if as_json:
        print_json({"results": found})
    else:
        print_note(tables(found))

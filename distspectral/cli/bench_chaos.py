"""``distspectral bench chaos``: runs whose processes are killed, beside one that was left alone."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from distspectral.cli.console import fact_table, print_json, print_table
from distspectral.cli.options import AsJson

if TYPE_CHECKING:
    from distspectral.bench.chaos import Kill

Kills = Annotated[int, typer.Option("--kills", min=0, help="Over as many runs as it takes.")]
Rows = Annotated[int, typer.Option("--rows", min=2000, help="Generated rows of 16 features.")]
Shards = Annotated[int, typer.Option("--shards", min=1, help="Source shards.")]
Seed = Annotated[int, typer.Option("--seed", help="Decides who dies.")]
Root = Annotated[Path | None, typer.Option("--root", metavar="DIR", help="Keep the runs here. [default: nowhere]")]


def register(group: typer.Typer) -> None:
    """Add the benchmark to the group."""
    group.command("chaos")(chaos)


def chaos(
    kills: Kills = 20,
    rows: Rows = 60_000,
    shards: Shards = 40,
    seed: Seed = 0,
    root: Root = None,
    as_json: AsJson = False,
) -> None:
    """Kill tasks, training workers, nodes and drivers of runs on a local cluster of three nodes, and compare."""
    from distspectral.bench.chaos import bench_chaos

    with tempfile.TemporaryDirectory(prefix="distspectral-chaos-") as scratch:
        folder = Path(scratch) if root is None else root
        folder.mkdir(parents=True, exist_ok=True)
        result = bench_chaos(folder, n_rows=rows, n_shards=shards, n_kills=kills, seed=seed, on_kill=_tell)
    if as_json:
        print_json(result)
    else:
        print_table(fact_table(f"{rows:,} rows in {shards} shards", _facts(result)))
    if not (result["exactly_once"] and all(result["same_bits"].values())):
        raise typer.Exit(1)


def _tell(kill: Kill) -> None:
    typer.echo(f"{kill.seconds:7.1f} s  {kill.victim} killed, last written: {kill.stage}", err=True)


def _facts(result: dict[str, Any]) -> list[tuple[str, str]]:
    other = [name for name, same in result["same_bits"].items() if not same]
    ritz = result["ritz_sum"]
    return [
        ("kills", ", ".join(f"{n} {victim}" for victim, n in result["kills"].items()) or "none"),
        ("runs, drivers that failed by themselves", f"{result['runs']}, {result['failed_drivers']}"),
        ("every row in the output once, in its place", "yes" if result["exactly_once"] else "NO"),
        ("same bits as left alone", "all" if not other else f"all but {', '.join(other)}"),
        ("clusters, adjusted Rand index with those of the calm run", f"{result['label_agreement']:.3f}"),
        ("Ritz sum, calm and killed", f"{ritz['calm']:.4f}, " + ", ".join(f"{one:.4f}" for one in ritz["killed"])),
        ("seconds", f"{result['seconds']:.0f}"),
    ]

"""``distspectral bench chaos`` and ``bench elastic``: runs whose processes and nodes are killed."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from distspectral.cli.console import fact_table, print_json, print_table
from distspectral.cli.options import AsJson

if TYPE_CHECKING:
    from distspectral.bench.killer import Kill

Kills = Annotated[int, typer.Option("--kills", min=0, help="Over as many runs as it takes.")]
Minutes = Annotated[float, typer.Option("--minutes", min=0, help="Go on with kills and runs at least so long.")]
Steps = Annotated[int, typer.Option("--steps", min=100, help="Of training.")]
Rows = Annotated[int, typer.Option("--rows", min=2000, help="Generated rows of 16 features.")]
Shards = Annotated[int, typer.Option("--shards", min=1, help="Source shards.")]
Workers = Annotated[int, typer.Option("--workers", min=2, help="At the beginning, one on each node.")]
Seed = Annotated[int, typer.Option("--seed", help="Decides who dies.")]
Root = Annotated[Path | None, typer.Option("--root", metavar="DIR", help="Keep the runs here. [default: nowhere]")]


def register(group: typer.Typer) -> None:
    """Add the benchmarks to the group."""
    group.command("chaos")(chaos)
    group.command("elastic")(elastic)


def chaos(
    kills: Kills = 20,
    minutes: Minutes = 0,
    steps: Steps = 2000,
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
        result = bench_chaos(
            folder,
            n_rows=rows,
            n_shards=shards,
            n_kills=kills,
            minutes=minutes,
            steps=steps,
            seed=seed,
            on_kill=_tell,
        )
    if as_json:
        print_json(result)
    else:
        print_table(fact_table(f"{rows:,} rows in {shards} shards", _facts(result)))
    if not (result["exactly_once"] and all(result["same_bits"].values())):
        raise typer.Exit(1)


def elastic(workers: Workers = 4, rows: Rows = 60_000, root: Root = None, as_json: AsJson = False) -> None:
    """Train on a node per worker, kill a node, start another one, and print the loss and the time lost."""
    from distspectral.bench.elastic import bench_elastic

    with tempfile.TemporaryDirectory(prefix="distspectral-elastic-") as scratch:
        folder = Path(scratch) if root is None else root
        folder.mkdir(parents=True, exist_ok=True)
        result = bench_elastic(folder, n_workers=workers, n_rows=rows, on_window=_tell_window)
    if as_json:
        print_json(result)
    else:
        facts = [(f"{name.replace('_', ' ')}, at each change", _list(result[name])) for name in _LOST]
        print_table(fact_table(f"{rows:,} rows, {workers} workers", facts))


_LOST = ("seconds_lost", "steps_lost")


def _tell_window(window: dict[str, Any]) -> None:
    typer.echo(
        f"{window['seconds']:7.1f} s  {window['workers']} workers  step {window['step']:5d}  loss {window['loss']:.4f}",
        err=True,
    )


def _tell(kill: Kill) -> None:
    typer.echo(f"{kill.seconds:7.1f} s  {kill.victim} killed, last written: {kill.stage}", err=True)


def _facts(result: dict[str, Any]) -> list[tuple[str, str]]:
    other = [name for name, same in result["same_bits"].items() if not same]
    runs, ritz = result["runs"], result["ritz_sum"]
    left = [sum(run["processes_left"].values()) for run in runs]
    return [
        ("kills", ", ".join(f"{n} {victim}" for victim, n in result["kills"].items()) or "none"),
        ("runs, drivers that failed by themselves", f"{len(runs)}, {sum(run['failed_drivers'] for run in runs)}"),
        ("every row in the output once, in its place", "yes" if result["exactly_once"] else "NO"),
        ("same bits as left alone", "all" if not other else f"all but {', '.join(other)}"),
        ("clusters, adjusted Rand index with those of the calm run", f"{result['label_agreement']:.3f}"),
        ("Ritz sum, calm and killed", f"{ritz['calm']:.4f}, " + ", ".join(f"{one:.4f}" for one in ritz["killed"])),
        ("driver's peak memory, MiB, run by run", _list(run["driver_peak_rss_bytes"] / 2**20 for run in runs)),
        ("Ray's processes left, run by run", _list(left)),
        ("machine's shared memory, MiB, run by run", _list(run["shared_memory_bytes"] / 2**20 for run in runs)),
        ("temporary files left, run by run", _list(run["temporary_files"] for run in runs)),
        ("seconds", f"{result['seconds']:.0f}"),
    ]


def _list(values: Iterable[float]) -> str:
    return ", ".join(f"{value:.0f}" for value in values)

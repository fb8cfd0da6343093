"""``distspectral bench chaos`` and ``elastic``: runs whose processes and nodes are killed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from distspectral.cli.bench_options import Root, folder_of_results, tell
from distspectral.cli.console import print_result
from distspectral.cli.options import AsJson

Kills = Annotated[int, typer.Option("--kills", min=0, help="Over as many runs as it takes.")]
Minutes = Annotated[float, typer.Option("--minutes", min=0, help="Go on with kills and runs at least so long.")]
KilledSteps = Annotated[int, typer.Option("--steps", min=100, help="Of training.")]
KilledRows = Annotated[int, typer.Option("--rows", min=2000, help="Generated rows of 16 features.")]
Shards = Annotated[int, typer.Option("--shards", min=1, help="Source shards.")]
Seed = Annotated[int, typer.Option("--seed", help="Decides who dies.")]


def chaos(
    kills: Kills = 20,
    minutes: Minutes = 0,
    steps: KilledSteps = 2000,
    rows: KilledRows = 60_000,
    shards: Shards = 40,
    seed: Seed = 0,
    root: Root = None,
    as_json: AsJson = False,
) -> None:
    """Kill tasks, training workers, nodes and drivers of runs on a local cluster of three nodes, and compare."""
    from distspectral.bench.chaos import bench_chaos

    with folder_of_results(root) as folder:
        result = bench_chaos(
            Path(folder),
            n_rows=rows,
            n_shards=shards,
            n_kills=kills,
            minutes=minutes,
            steps=steps,
            seed=seed,
            on_kill=lambda kill: tell(vars(kill)),
        )
    print_result("Killed runs beside the calm one", result, as_json)
    if not (result["exactly_once"] and all(result["same_bits"].values())):
        raise typer.Exit(1)


Workers = Annotated[int, typer.Option("--workers", min=2, help="At the beginning, one on each node.")]


def elastic(workers: Workers = 4, rows: KilledRows = 60_000, root: Root = None, as_json: AsJson = False) -> None:
    """Train on a node per worker, kill a node, start another one, and print the loss and the time lost."""
    from distspectral.bench.elastic import bench_elastic

    with folder_of_results(root) as folder:
        result = bench_elastic(Path(folder), n_workers=workers, n_rows=rows, on_window=tell)
    print_result("Lost node and new one", result, as_json)

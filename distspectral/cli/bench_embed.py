"""``distspectral bench embed``: the stage beside a bare torch loop over the same Parquet."""

from __future__ import annotations

from typing import Annotated

import typer

from distspectral.cli.console import fact_table, print_json, print_table
from distspectral.cli.options import AsJson

Rows = Annotated[int, typer.Option("--rows", min=1, help="Generated rows.")]
Dim = Annotated[int, typer.Option("--dim", min=1, help="Features of a row.")]
BatchRows = Annotated[
    int | None, typer.Option("--batch-rows", min=1, help="Rows of a batch, in both. [default: the stage's]")
]
Threads = Annotated[int | None, typer.Option("--threads", min=1, help="Threads of either. [default: all cores]")]
Rounds = Annotated[int, typer.Option("--rounds", min=1, help="Runs of either, in turns; medians count.")]
Folder = Annotated[
    str | None, typer.Option("--folder", metavar="DIR", help="Keep the generated rows here. [default: nowhere]")
]


def register(group: typer.Typer) -> None:
    """Add the benchmark to the group."""
    group.command("embed")(embed)


def embed(
    rows: Rows = 1_000_000,
    dim: Dim = 64,
    batch_rows: BatchRows = None,
    threads: Threads = None,
    rounds: Rounds = 1,
    folder: Folder = None,
    as_json: AsJson = False,
) -> None:
    """Compare embedding, an MLP D-512-512-10 with clusters and output, with a bare torch loop that writes nothing."""
    from distspectral.bench.embed import compare_embedding
    from distspectral.bench.machine import describe_machine
    from distspectral.stages.embed import EmbedConfig

    config = EmbedConfig() if batch_rows is None else EmbedConfig(batch_rows=batch_rows)
    result = compare_embedding(rows, dim, config, threads or describe_machine()["cores"], rounds, folder)
    if as_json:
        print_json(result)
        return
    busy, machine = result["busy_seconds"], result["machine"]
    peaks = [f"{result[key] / 2**30:.2f}" for key in ("peak_rss_bytes", "bare_peak_rss_bytes")]
    facts = [
        ("rows per second", f"{result['rows_per_second']:,.0f}, bare {result['bare_rows_per_second']:,.0f}"),
        ("ratio to bare", f"{result['ratio_to_bare']:.3f}"),
        ("core-seconds", f"{result['core_seconds']:.1f}, bare {result['bare_core_seconds']:.1f}"),
        ("peak memory", f"{peaks[0]} GiB, bare {peaks[1]}"),
        ("busy seconds", ", ".join(f"{name} {seconds:.1f}" for name, seconds in busy.items())),
        ("output", f"{result['output_bytes_per_row']:.1f} bytes a row"),
        ("machine", f"{machine['gpu'] or machine['processor']}, {result['threads']} threads, torch {machine['torch']}"),
    ]
    print_table(fact_table(f"Embedding, {rows:,} rows x {dim}, batches of {result['batch_rows']:,}", facts))

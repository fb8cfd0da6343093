"""``distspectral bench plan``, ``bench end-to-end``: what runs of growing size take, and whether that was foretold."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from distspectral.cli.console import fact_table, print_json, print_table
from distspectral.cli.options import AsJson, Local, Overrides

PLAN_ROWS = (20_000, 60_000, 180_000)
END_TO_END_ROWS = (100_000, 1_000_000)

Rows = Annotated[list[int] | None, typer.Option("--rows", min=100, help="A size; may be repeated.", show_default=False)]
Dim = Annotated[int, typer.Option("--dim", min=1, help="Features of generated rows.")]
Intrinsic = Annotated[int, typer.Option("--intrinsic-dim", min=1, help="Dimension of the manifold that rows lie on.")]
Root = Annotated[
    str | None, typer.Option("--root", metavar="DIR", help="Keep data and runs here, and go on with them.")
]


def register(group: typer.Typer) -> None:
    """Add the benchmarks to the group."""
    group.command("plan")(plan)
    group.command("end-to-end")(end_to_end)


@contextlib.contextmanager
def _folder(root: str | None) -> Iterator[str]:
    """Yield the directory asked for, or one that vanishes again."""
    if root is not None:
        Path(root).mkdir(parents=True, exist_ok=True)
        yield str(Path(root).absolute())
        return
    with tempfile.TemporaryDirectory(prefix="distspectral-bench-") as folder:
        yield folder


def plan(rows: Rows = None, dim: Dim = 32, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Run three sizes in one thread and compare each stage with what `distspectral plan` foretells."""
    from distspectral.bench.plan import compare_plan

    with _folder(None) as folder:
        result = compare_plan(rows or PLAN_ROWS, dim, overrides or (), folder)
    if as_json:
        print_json(result)
        return
    for size in result["sizes"]:
        print_table(_plan_table(size, dim))


def end_to_end(
    rows: Rows = None,
    dim: Dim = 64,
    intrinsic_dim: Intrinsic = 8,
    overrides: Overrides = None,
    root: Root = None,
    local: Local = False,
    as_json: AsJson = False,
) -> None:
    """Run the whole pipeline on generated rows of growing number: seconds, exponents, memory, recall, spectrum."""
    from distspectral.bench.end_to_end import compare_sizes
    from distspectral.datasets import Mixture

    with _folder(root) as folder:
        mixture = Mixture(dim, intrinsic_dim)
        result = compare_sizes(rows or END_TO_END_ROWS, mixture, overrides or (), folder, local, _tell)
    if as_json:
        print_json(result)
        return
    print_table(_size_table(result))
    if exact := result["sizes"][0].get("exact"):
        facts = [
            ("sin^2 to exact eigenvectors", f"mean {exact['mean_sin2']:.4f}, largest {exact['max_sin2']:.4f}"),
            ("sum of eigenvalues", f"learned {exact['ritz_sum']:.4f}, exact {exact['exact_sum']:.4f}"),
        ]
        print_table(fact_table(f"Spectrum at {exact['n_rows']:,} rows, {exact['n_functions']} functions", facts))


def _tell(size: dict[str, Any]) -> None:
    typer.echo(f"{size['rows']:,} rows in {sum(size['seconds'].values()):,.0f} s", err=True)


def _plan_table(size: dict[str, Any], dim: int) -> Table:
    from distspectral.report.formats import n_bytes

    table = Table(title=f"{size['rows']:,} rows x {dim}, one thread", title_justify="left")
    table.add_column("stage")
    for heading in ("predicted s", "measured s", "error", "core-seconds", "error"):
        table.add_column(heading, justify="right")
    for stage, one in [*size["stages"].items(), ("all", size["all"])]:
        if stage == "all":
            table.add_section()
        seconds = f"{one['predicted']:,.2f}", f"{one['seconds']:,.2f}", f"{one['error']:+.0%}"
        table.add_row(stage, *seconds, f"{one['core_seconds']:,.2f}", f"{one['core_error']:+.0%}")
    for name, key in (("kept", "kept_bytes"), ("peak memory", "peak_rss_bytes")):
        predicted, found = size[key]["predicted"], size[key]["found"]
        table.add_row(name, n_bytes(predicted), n_bytes(found), f"{predicted / max(found, 1) - 1:+.0%}")
    return table


def _size_table(result: dict[str, Any]) -> Table:
    from distspectral.report.formats import n_bytes

    sizes, data = result["sizes"], result["data"]
    title = f"Rows x {data['dim']} of intrinsic dimension {data['intrinsic_dim']}, {data['n_clusters']} clusters"
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for size in sizes:
        table.add_column(f"{size['rows']:,}", justify="right")
    table.add_column("exponent", justify="right")
    for stage in sizes[0]["seconds"]:
        exponent = result["exponents"].get(stage)
        times = (f"{size['seconds'][stage]:,.1f}" for size in sizes)
        table.add_row(f"{stage}, s", *times, "" if exponent is None else f"{exponent:.2f}")
    table.add_section()
    table.add_row("training, edges/s", *(f"{size['edges_per_second']:,.0f}" for size in sizes))
    table.add_row("peak memory", *(n_bytes(size["peak_rss_bytes"]) for size in sizes))
    table.add_row("recall of the graph", *(f"{size['recall']:.4f}" for size in sizes))
    table.add_row("components", *(f"{size['components']:,}" for size in sizes))
    return table

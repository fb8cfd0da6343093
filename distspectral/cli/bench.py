"""``distspectral bench NAME``: a result beside its baseline, both measured in this run."""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from distspectral.cli import bench_dscl, bench_embed, bench_kills, bench_quality, bench_scale, bench_serve
from distspectral.cli.console import fact_table, print_json, print_table
from distspectral.cli.options import AsJson

if TYPE_CHECKING:
    from distspectral.storage.source.dataset import Source

RunPath = Annotated[str, typer.Argument(metavar="RUN", help="Directory of a finished run.", show_default=False)]
Functions = Annotated[
    int | None, typer.Option("--functions", metavar="N", min=1, help="Compare the lowest N functions. [default: all]")
]


Rows = Annotated[int | None, typer.Option("--rows", min=32, help="Generated rows. [default: 100,000]")]
Dim = Annotated[int, typer.Option("--dim", min=1, help="Features of generated rows.")]
Data = Annotated[
    str | None, typer.Option("--data", metavar="PATH", help="Shards with a column `vector`; default: generated rows.")
]
Neighbors = Annotated[int, typer.Option("--neighbors", "-k", min=1, help="Neighbours of each row.")]
Method = Annotated[
    list[str] | None, typer.Option("--method", help="Only this one; may be repeated.", show_default=False)
]
Eigenvectors = Annotated[
    int, typer.Option("--functions", min=0, help="Compare that many eigenvectors with the exact graph's.")
]
Half = Annotated[bool, typer.Option("--float16", help="Store rows in half precision, as pack.dtype: float16 does.")]
Threads = Annotated[int, typer.Option("--threads", min=1, help="Threads of each method's process.")]


def register(app: typer.Typer) -> None:
    """Add the group of benchmarks."""
    group = typer.Typer(help="Measure results beside their baselines.", no_args_is_help=True)
    group.command("spectrum")(spectrum)
    group.command("graph")(graph)
    group.command("train")(train)
    bench_embed.register(group)
    bench_dscl.register(group)
    bench_kills.register(group)
    bench_quality.register(group)
    bench_serve.register(group)
    bench_scale.register(group)
    app.add_typer(group, name="bench")


def spectrum(run: RunPath, functions: Functions = None, as_json: AsJson = False) -> None:
    """Compare a run with the exact eigenvectors of the graph it built, and with clusters found in those."""
    from distspectral.bench.spectrum import compare_with_exact
    from distspectral.storage.artifact.directory import Artifact

    result = compare_with_exact(Artifact(run), functions)
    if as_json:
        print_json(result)
        return
    facts = [
        ("rows, functions compared", f"{result['n_rows']:,}, {result['n_functions']}"),
        ("sin^2 of principal angles", f"mean {result['mean_sin2']:.4f}, largest {result['max_sin2']:.4f}"),
        ("sum of eigenvalues", f"learned {result['ritz_sum']:.4f}, exact {result['exact_sum']:.4f}"),
        ("seconds of the exact solver", f"{result['exact_seconds']:.1f}"),
    ]
    for name, key in (("learned", "agreement"), ("exact", "exact_agreement")):
        if scores := result.get(key):
            facts.append((f"ACC / NMI / ARI, {name}", " / ".join(f"{scores[s]:.3f}" for s in ("acc", "nmi", "ari"))))
    print_table(fact_table(f"Spectrum of {run}", facts))


def graph(
    rows: Rows = None,
    dim: Dim = 96,
    data: Data = None,
    neighbors: Neighbors = 15,
    method: Method = None,
    threads: Threads = 1,
    float16: Half = False,
    functions: Eigenvectors = 0,
    as_json: AsJson = False,
) -> None:
    """Compare the neighbour search with pynndescent, FAISS HNSW, FAISS IVF-Flat and exact search."""
    from distspectral.bench.graph import METHODS, compare_searches
    from distspectral.errors import ConfigError

    if unknown := set(method or ()) - set(METHODS):
        raise ConfigError(f"--method: is {min(unknown)}; choose from {', '.join(METHODS)}")
    with tempfile.TemporaryDirectory(prefix="distspectral-rows-") as folder:
        source = _bench_rows(rows, dim, data, folder)
        dtype: Literal["float16", "float32"] = "float16" if float16 else "float32"
        result = compare_searches(source, neighbors, method or METHODS, threads, dtype, functions)
    if as_json:
        print_json(result)
        return
    for row in result["methods"]:
        facts = [
            ("recall", f"{row['recall']:.4f}"),
            ("components", "unknown" if row["components"] is None else f"{row['components']:,}"),
            ("core-seconds, wall seconds", f"{row['core_seconds']:.1f}, {row['wall_seconds']:.1f}"),
            *([("mean sin^2 of eigenvectors", f"{row['mean_sin2']:.5f}")] if "mean_sin2" in row else []),
            ("peak memory", f"{row['peak_rss_bytes'] / 2**30:.2f} GiB"),
        ]
        print_table(fact_table(row["name"], facts))


Steps = Annotated[int, typer.Option("--steps", min=2, help="Steps of each timing.")]
Rounds = Annotated[int, typer.Option("--rounds", min=1, help="Timings of either side; medians count.")]


def train(rows: Rows = None, dim: Dim = 96, steps: Steps = 40, rounds: Rounds = 3, as_json: AsJson = False) -> None:
    """Compare the trainer's steps with the bare forward and backward passes of the same networks."""
    from distspectral.bench.train import compare_training

    result = compare_training(rows or 100_000, dim, steps, rounds, "auto")
    if as_json:
        print_json(result)
        return
    rates = (
        (name, f"{one['steps_per_second']:.1f} steps/s, {one['ratio_to_bare']:.0%} of the bare network's")
        for name, one in result["objectives"].items()
    )
    print_table(fact_table(f"Training, {result['rows']:,} rows x {result['dim']}", rates))


def _bench_rows(n_rows: int | None, dim: int, data: str | None, folder: str) -> Source:
    """Return shards given, whole or their first rows, or generated ones."""
    from distspectral.datasets import Mixture, write_mixture
    from distspectral.errors import ConfigError
    from distspectral.storage.source.dataset import Source, SourceConfig

    if data is not None:
        if n_rows is not None:
            raise ConfigError("--rows: is for generated rows; --data is taken whole")
        return Source.open(SourceConfig(path=data))
    return Source.open(SourceConfig(path=write_mixture(folder, Mixture(dim), n_rows or 100_000)))

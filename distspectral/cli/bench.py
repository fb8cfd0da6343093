"""``distspectral bench NAME``: a result beside its baseline, both measured in this run."""

from __future__ import annotations

from typing import Annotated

import typer

from distspectral.cli import bench_dscl
from distspectral.cli.console import fact_table, print_json, print_table
from distspectral.cli.options import AsJson

RunPath = Annotated[str, typer.Argument(metavar="RUN", help="Directory of a finished run.", show_default=False)]
Functions = Annotated[
    int | None, typer.Option("--functions", metavar="N", min=1, help="Compare the lowest N functions. [default: all]")
]


def register(app: typer.Typer) -> None:
    """Add the group of benchmarks."""
    group = typer.Typer(help="Measure results beside their baselines.", no_args_is_help=True)
    group.command("spectrum")(spectrum)
    bench_dscl.register(group)
    app.add_typer(group, name="bench")


def spectrum(run: RunPath, functions: Functions = None, as_json: AsJson = False) -> None:
    """Compare a run with the exact eigenvectors of the graph it built, and with clusters found in those."""
    from distspectral.bench.spectrum import compare_with_exact
    from distspectral.storage.artifacts import Artifact

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
    for name, key in (("learned", "evaluate"), ("exact", "exact_evaluate")):
        if scores := result.get(key):
            facts.append((f"ACC / NMI / ARI, {name}", " / ".join(f"{scores[s]:.3f}" for s in ("acc", "nmi", "ari"))))
    print_table(fact_table(f"Spectrum of {run}", facts))

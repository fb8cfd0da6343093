"""``distspectral evaluate RUN``: how good a finished run's embedding is, by labels it was not trained on."""

from __future__ import annotations

from typing import Annotated

import typer

from distspectral.cli.console import add_retrieval_rows, fact_table, print_json, print_table
from distspectral.cli.options import AsJson
from distspectral.errors import ConfigError

RunPath = Annotated[
    str,
    typer.Argument(
        metavar="RUN", help="Directory of a finished run, or of `embed --source --output`.", show_default=False
    ),
]
Retrieval = Annotated[
    bool, typer.Option("--retrieval", help="Recall@K, MAP@R and NMI of k-means on the classes training never saw.")
]
SpectralStep = Annotated[
    bool | None,
    typer.Option(
        "--spectral-step/--no-spectral-step",
        help="First centre the evaluated rows and keep the span of their thin SVD. [default: as the run's config says]",
        show_default=False,
    ),
]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("evaluate")(evaluate)


def evaluate(
    run: RunPath, retrieval: Retrieval = False, spectral_step: SpectralStep = None, as_json: AsJson = False
) -> None:
    """Judge a finished run by labels; --retrieval for a metric learned by objective dscl."""
    if not retrieval:
        raise ConfigError("evaluate: say what to measure; --retrieval is for runs of objective dscl")
    from distspectral.stages.plan import METRIC_CHAIN
    from distspectral.stages.retrieval import evaluate_again
    from distspectral.storage.artifacts import Artifact

    root = Artifact(run)
    embedding, evaluation = (root.child(METRIC_CHAIN[stage].directory) for stage in ("encode", "evaluate"))
    scores = evaluate_again(embedding, evaluation, spectral_step)
    if as_json:
        print_json(scores)
        return
    table = fact_table(f"Unseen classes of {run}")
    add_retrieval_rows(table, scores)
    print_table(table)

"""``distspectral evaluate RUN``: how good a finished run's embedding is, by labels it was not trained on."""

from __future__ import annotations

from typing import Annotated

import typer

from distspectral.cli.console import fact_table, print_json, print_table, record_table
from distspectral.cli.options import AsJson
from distspectral.errors import ConfigError

RunPath = Annotated[
    str,
    typer.Argument(
        metavar="RUN", help="Directory of a finished run, or of `distspectral embed RUN NEW`.", show_default=False
    ),
]
Labels = Annotated[
    str | None,
    typer.Option(
        "--labels",
        metavar="PATH",
        help="Parquet, Arrow or CSV with ids and labels. (default: the labels of the run's own data)",
        show_default=False,
    ),
]
IdColumn = Annotated[str, typer.Option("--id-column", help="Column of --labels that holds the run's output ids.")]
LabelColumn = Annotated[str, typer.Option("--label-column", help="Column of --labels that holds the labels.")]
Retrieval = Annotated[
    bool, typer.Option("--retrieval", help="Recall@K, MAP@R and NMI of k-means on the classes training never saw.")
]
SpectralStep = Annotated[
    bool | None,
    typer.Option(
        "--spectral-step/--no-spectral-step",
        help="First centre the evaluated rows and keep the span of their thin SVD. (default: as the run's config says)",
        show_default=False,
    ),
]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("evaluate")(evaluate)


def evaluate(
    run: RunPath,
    labels: Labels = None,
    id_column: IdColumn = "id",
    label_column: LabelColumn = "label",
    retrieval: Retrieval = False,
    spectral_step: SpectralStep = None,
    as_json: AsJson = False,
) -> None:
    """Judge a finished run by labels: its clusters, or with --retrieval a metric learned by objective dscl."""
    if retrieval:
        _evaluate_retrieval(run, spectral_step, as_json)
        return
    if spectral_step is not None:
        raise ConfigError("--spectral-step: is for --retrieval; clusters have no such step")
    from distspectral.report.agreement import agreement, write_picture
    from distspectral.storage.artifact.directory import Artifact

    root = Artifact(run)
    found = agreement(root, labels, id_column, label_column)
    if as_json:
        print_json(found.scores())
        return
    scores = found.scores()
    facts = [(name, f"{scores[key]:.4f}") for name, key in (("accuracy", "acc"), ("NMI", "nmi"), ("ARI", "ari"))]
    unlabeled = [("rows without a label", f"{found.n_unlabeled:,}")] if found.n_unlabeled else []
    facts += [("labelled rows", f"{scores['n_rows']:,}"), *unlabeled, ("picture", write_picture(root, found))]
    print_table(fact_table(f"Clusters of {run}", facts))
    clusters = {
        f"cluster {one['cluster']}": {
            "rows": one["rows"],
            "most frequent label": one["label"],
            "its_share": one["share"],
        }
        for one in found.by_cluster()
    }
    print_table(record_table("By cluster", clusters))


def _evaluate_retrieval(run: str, spectral_step: bool | None, as_json: bool) -> None:
    from distspectral.recipes import MetricRecipe
    from distspectral.stages.evaluate import evaluate_again, retrieval_lines
    from distspectral.stages.finished_run import FinishedRun
    from distspectral.storage.artifact.directory import Artifact

    finished = FinishedRun(Artifact(run))
    finished.require_kind(MetricRecipe.kind, "learned metric")
    scores = evaluate_again(finished.artifact("embed"), finished.artifact("evaluate"), spectral_step)
    if as_json:
        print_json(scores)
        return
    print_table(fact_table(f"Unseen classes of {run}", retrieval_lines(scores).items()))

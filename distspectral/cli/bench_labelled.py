"""``distspectral bench quality``, ``choice`` and ``dscl``: scores on labelled rows, beside those of other methods."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Annotated

import typer

from distspectral.cli.bench_options import BaselinesEnv, LabelledFolders, Root, Seeds, folder_of_results, tell
from distspectral.cli.console import print_json, print_note
from distspectral.cli.options import AsJson, Local, Overrides, engine_of

ClusterMethods = Annotated[
    list[str] | None,
    typer.Option(
        "--method",
        metavar="NAME",
        help="distspectral, exact, k-means, umap-kmeans, umap-hdbscan, scikit-learn, leiden, evoc or spectralnet; may "
        "be repeated. (default: all but the last)",
    ),
]
HeldOut = Annotated[int, typer.Option("--held-out", min=0, help="Last shards of a set, embedded but not trained on.")]


def quality(
    folders: LabelledFolders = None,
    seeds: Seeds = None,
    methods: ClusterMethods = None,
    overrides: Overrides = None,
    held_out: HeldOut = 0,
    root: Root = None,
    baselines_env: BaselinesEnv = Path("~/.cache/distspectral/baselines"),
    local: Local = False,
    as_json: AsJson = False,
) -> None:
    """Cluster labelled sets with the defaults and with other methods; print tables in Markdown.

    Results are kept in ROOT/results.jsonl; those that are there already are not made again.
    """
    from distspectral.bench.baselines import REQUIREMENTS, ensure_environment
    from distspectral.bench.suite import DEFAULT_METHODS, OWN, find_sets, run_suite, summary, tables
    from distspectral.errors import ConfigError

    if root is not None and "://" in root:
        raise ConfigError(f"--root: is {root}, but results are kept and shared with other programs in a local folder")
    chosen = methods or DEFAULT_METHODS
    foreign = [name for name in chosen if name in REQUIREMENTS]
    with folder_of_results(root) as folder:
        sets = find_sets(folders or OWN, folder, held_out, lambda told: typer.echo(told, err=True))
        python = ensure_environment(baselines_env.expanduser(), foreign) if foreign else None
        found = run_suite(
            sets,
            Path(folder),
            (0, 1, 2) if seeds is None else seeds,
            chosen,
            overrides or (),
            functools.partial(engine_of, local=local),
            python,
            tell,
        )
    if as_json:
        print_json({"results": found, "summary": summary(found)})
    else:
        print_note(tables(found))


def choice(folders: LabelledFolders = None, seeds: Seeds = None, root: Root = None, as_json: AsJson = False) -> None:
    """Compare what the defaults choose without labels with every way they might have gone, by exact eigenvectors.

    Results are kept in ROOT/choice.jsonl; those that are there already are not made again.
    """
    from distspectral.bench.choice import compare_choices, summary, table
    from distspectral.bench.suite import OWN, find_sets

    with folder_of_results(root) as folder:
        sets = find_sets(folders or OWN, folder, on_skip=lambda told: typer.echo(told, err=True))
        found = compare_choices(sets, Path(folder), (0, 1, 2) if seeds is None else seeds, tell)
    if as_json:
        print_json({"results": found, "summary": summary(found)})
    else:
        print_note(table(found))


ImageFolder = Annotated[
    str, typer.Argument(metavar="FOLDER", help="Shards of images: columns vector and label.", show_default=False)
]
Losses = Annotated[
    list[str] | None, typer.Option("--loss", metavar="NAME", help="One loss; may be repeated. (default: all)")
]
Lengths = Annotated[
    list[int] | None, typer.Option("--steps", min=1, help="Of training; may be repeated. (default: 300)")
]
BatchSize = Annotated[int, typer.Option("--batch-size", min=4, help="Rows of a batch.")]
RowsPerClass = Annotated[int, typer.Option("--rows-per-class", min=2, help="Of a batch.")]
Components = Annotated[int, typer.Option("--width", min=1, help="Of the embedding.")]
TrainClasses = Annotated[int, typer.Option("--train-classes", min=5, help="Classes learned from; the others judge.")]
Side = Annotated[int, typer.Option("--side", min=1, help="Images are so many pixels high and wide, in grey.")]
Validate = Annotated[
    bool, typer.Option("--validate", help="Judge by the last fifth of the training classes: for choosing settings.")
]
LearningRate = Annotated[
    float | None, typer.Option("--learning-rate", min=0, help="In place of each loss's own.", show_default=False)
]


def dscl(
    folder: ImageFolder,
    losses: Losses = None,
    seeds: Seeds = None,
    steps: Lengths = None,
    train_classes: TrainClasses = 964,
    side: Side = 28,
    width: Components = 64,
    batch_size: BatchSize = 640,
    rows_per_class: RowsPerClass = 5,
    validate: Validate = False,
    learning_rate: LearningRate = None,
    root: Root = None,
    as_json: AsJson = False,
) -> None:
    """Train DSCL and four other losses alike and compare them on classes that none has seen (defaults: Omniglot).

    Results are kept in ROOT/losses.jsonl; those that are there already are not made again.
    """
    from distspectral.bench.dscl import RECIPES, Comparison, compare_losses, summary, table

    comparison = Comparison(folder, train_classes, (1, side, side), validate, width, batch_size, rows_per_class)
    with folder_of_results(root) as kept:
        found = compare_losses(
            comparison,
            Path(kept),
            losses or list(RECIPES),
            (0, 1, 2) if seeds is None else seeds,
            steps or (300,),
            learning_rate,
            tell,
        )
    if as_json:
        print_json({"results": found, "summary": summary(found)})
    else:
        print_note(table(found))

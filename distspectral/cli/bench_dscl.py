"""``distspectral bench dscl``: the supervised objective beside the losses of pytorch-metric-learning."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from distspectral.cli.console import fact_table, print_json, print_table
from distspectral.cli.options import AsJson

Folder = Annotated[
    str, typer.Argument(metavar="FOLDER", help="Shards of images: columns vector and label.", show_default=False)
]
Losses = Annotated[
    list[str] | None, typer.Option("--loss", metavar="NAME", help="One loss; may be repeated. [default: all]")
]
Seeds = Annotated[list[int] | None, typer.Option("--seed", help="A seed; may be repeated. [default: 0, 1, 2]")]
Steps = Annotated[int, typer.Option("--steps", min=1, help="Steps of training, 640 rows each.")]
TrainClasses = Annotated[int, typer.Option("--train-classes", min=5, help="Classes learned from; the others judge.")]
Side = Annotated[int, typer.Option("--side", min=1, help="Images are so many pixels high and wide, in grey.")]
Validate = Annotated[
    bool, typer.Option("--validate", help="Judge by the last fifth of the training classes: for choosing settings.")
]
LearningRate = Annotated[
    float | None, typer.Option("--learning-rate", min=0, help="In place of each loss's own.", show_default=False)
]


def register(group: typer.Typer) -> None:
    """Add the benchmarks to the group."""
    group.command("dscl")(dscl)
    group.command("dscl-cost")(dscl_cost)


def dscl(
    folder: Folder,
    losses: Losses = None,
    seeds: Seeds = None,
    steps: Steps = 300,
    train_classes: TrainClasses = 964,
    side: Side = 28,
    validate: Validate = False,
    learning_rate: LearningRate = None,
    as_json: AsJson = False,
) -> None:
    """Train DSCL and four other losses alike and compare them on classes that none has seen (defaults: Omniglot)."""
    from distspectral.bench.dscl import RECIPES, compare_losses, summary

    results = compare_losses(
        folder,
        losses or list(RECIPES),
        (0, 1, 2) if seeds is None else seeds,
        steps=steps,
        train_classes=train_classes,
        image_shape=(1, side, side),
        validate=validate,
        learning_rate=learning_rate,
        on_result=_tell,
    )
    if as_json:
        print_json({"results": results, "summary": summary(results)})
        return
    print_table(_table(summary(results)))


Batches = Annotated[
    list[int] | None, typer.Option("--batch", help="Rows; may be repeated, ascending. [default: 1024, 2048, 4096]")
]
Width = Annotated[int, typer.Option("--width", min=1, help="Of the embedding.")]
ImageSide = Annotated[int, typer.Option("--image-side", min=8, help="Pixels of the ResNet-18's square images.")]
NetworkRows = Annotated[int, typer.Option("--network-rows", min=2, help="Rows that its step is timed on.")]


def dscl_cost(
    batches: Batches = None,
    width: Width = 512,
    image_side: ImageSide = 64,
    network_rows: NetworkRows = 32,
    as_json: AsJson = False,
) -> None:
    """Time the loss with its gradient by batch, and beside a ResNet-18's step on as many rows as the last batch."""
    from distspectral.bench.dscl_cost import cost
    from distspectral.models.networks import torch_device

    result = cost(batches or (1024, 2048, 4096), width, image_side, network_rows, torch_device("auto"))
    if as_json:
        print_json(result)
        return
    facts = [
        (f"{n_rows:,} rows x {width}", f"loss {seconds['loss']:.4f} s, in the trainer {seconds['objective']:.4f} s")
        for n_rows, seconds in result["seconds"].items()
    ]
    facts += [
        ("doubling the rows", ", ".join(f"{ratio:.2f} x" for ratio in result["doubling"])),
        ("ResNet-18 step", f"{result['resnet18_step_seconds']:.1f} s for the last batch, scaled up"),
        ("share of that step", f"{result['share_of_step']:.2%}"),
    ]
    print_table(fact_table("Cost of the projector loss", facts))


def _tell(result: dict[str, Any]) -> None:
    recall = result["plain"]["recall_at"]["1"]
    typer.echo(f"{result['loss']}, seed {result['seed']}: R@1 {recall:.4f} in {result['seconds']:.0f} s", err=True)


def _table(rows: dict[str, dict[str, tuple[float, float]]]) -> Any:
    from rich.table import Table

    table = Table(title="Unseen classes, mean and standard deviation over seeds", title_justify="left")
    for heading in ("score", *rows):
        table.add_column(heading)
    for score in next(iter(rows.values())):
        cells = (row[score] for row in rows.values())
        table.add_row(score, *(f"{mean:.4f} ({spread:.4f})" for mean, spread in cells))
    return table

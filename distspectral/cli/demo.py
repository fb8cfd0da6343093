"""``distspectral demo``: real handwritten digits through the whole pipeline, with two training workers."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from distspectral.cli.options import AsJson, Local, Quiet
from distspectral.cli.run import run_config, show

N_SHARDS = 4

Root = Annotated[str, typer.Option("--root", metavar="DIR", help="Where data, artifacts and the report go.")]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("demo")(demo)


def demo_values(root: str) -> dict[str, Any]:
    """Return the demo's config as plain values; ``jobs/configs/digits.yaml`` says the same."""
    return {
        "name": "digits",
        "root": root,
        "data": {
            "path": f"{root.rstrip('/')}/data",
            "id_column": "id",
            "label_column": "label",
            "scale": 0.0625,
        },
        "autoencoder": {"hidden": [256, 128], "max_steps": 500},
        "siamese": {"max_steps": 500},
        "cluster": {"n_clusters": 10},
        "ray": {"workers": 2},
    }


def demo(root: Root = "runs/demo", local: Local = False, quiet: Quiet = False, as_json: AsJson = False) -> None:
    """Cluster scikit-learn's 1,797 digits: Parquet shards, graph, Ray Train, embedding, report."""
    from distspectral.config.check import check_writable
    from distspectral.config.load import validate_values
    from distspectral.datasets import write_digits
    from distspectral.storage.artifacts import Artifact

    config = validate_values(demo_values(root), "demo")
    check_writable(root)
    data = f"{root.rstrip('/')}/data"
    if not Artifact(data).has(f"part-{N_SHARDS - 1:05d}.parquet"):  # shards written anew have another fingerprint
        write_digits(data, N_SHARDS)
    show(config, run_config(config, local, quiet), as_json)

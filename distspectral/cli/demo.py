"""``distspectral demo``: handwritten digits, or generated rows of any number, through the whole pipeline."""

from __future__ import annotations

from importlib import resources
from typing import Annotated, Any

import typer

from distspectral.cli.options import AsJson, Local, Quiet
from distspectral.cli.run import run_config, show

N_SHARDS = 4

Root = Annotated[
    str, typer.Option("--root", metavar="DIR", help="Where data, artifacts and the report go; with --rows, DIR-ROWS.")
]
Rows = Annotated[
    int | None,
    typer.Option("--rows", min=100, help="Generated rows of 64 features instead of the digits.", show_default=False),
]
DIM = 64


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("demo")(demo)


def digits_values(root: str) -> dict[str, Any]:
    """Return the config of the digits as plain values, its data and artifacts under ``root``."""
    import yaml

    values: dict[str, Any] = yaml.safe_load(resources.files("distspectral.cli").joinpath("digits.yaml").read_text())
    values["root"] = root
    values["data"]["path"] = f"{root.rstrip('/')}/data"
    return values


def generated_values(root: str, n_clusters: int) -> dict[str, Any]:
    """Return the config of a demo on generated rows as plain values: all defaults."""
    return {
        "name": "generated",
        "root": root,
        "data": {"path": f"{root}/data", "id_column": "id", "label_column": "label"},
        "cluster": {"n_clusters": n_clusters},
    }


def demo(
    root: Root = "runs/demo", rows: Rows = None, local: Local = False, quiet: Quiet = False, as_json: AsJson = False
) -> None:
    """Cluster scikit-learn's 1,797 digits, or generated rows: Parquet shards, graph, Ray Train, embedding, report."""
    from distspectral.config.check import check_writable
    from distspectral.config.load import validate_values
    from distspectral.datasets import Mixture, write_digits, write_mixture
    from distspectral.storage.artifact.directory import Artifact

    if rows is not None:
        mixture, root = Mixture(DIM), f"{root.rstrip('/')}-{rows}"
        config = validate_values(generated_values(root, mixture.n_clusters), "demo")
        check_writable(root)
        write_mixture(f"{root}/data", mixture, rows)
    else:
        config = validate_values(digits_values(root), "demo")
        check_writable(root)
        data = f"{root.rstrip('/')}/data"
        if not Artifact(data).has(f"part-{N_SHARDS - 1:05d}.parquet"):  # shards written anew have another fingerprint
            write_digits(data, N_SHARDS)
    show(config, run_config(config, local, quiet), as_json)

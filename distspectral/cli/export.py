"""``distspectral export RUN``: the trained model as programs that need torch or onnxruntime alone."""

from __future__ import annotations

from typing import Annotated

import typer

from distspectral.cli.console import manifest_table, print_json, print_table
from distspectral.cli.options import AsJson, RunPath
from distspectral.errors import ConfigError

OutputPath = Annotated[
    str | None, typer.Option("--output", metavar="DIR", help="Where the programs go. (default: RUN/export)")
]
Formats = Annotated[
    list[str] | None,
    typer.Option("--format", metavar="NAME", help="torch or onnx; may be repeated. (default: both)"),
]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("export")(export)


def export(run: RunPath, output: OutputPath = None, formats: Formats = None, as_json: AsJson = False) -> None:
    """Write the model with its centroids as torch.export and ONNX programs, checked against the network."""
    from distspectral.serving.export import FORMATS
    from distspectral.serving.export import export as export_predictor
    from distspectral.serving.predictor import load_predictor
    from distspectral.storage.artifact.directory import Artifact
    from distspectral.storage.artifact.holding import Hold

    if unknown := set(formats or ()).difference(FORMATS):
        raise ConfigError(f"--format: is {min(unknown)}; choose from {', '.join(FORMATS)}")
    root = Artifact(run)
    artifact = Artifact(output) if output else root.child("export")
    chosen = [name for name in FORMATS if name in (formats or FORMATS)]
    predictor = load_predictor(root)
    with Hold(artifact, f"export of {root.uri}"):
        manifest = export_predictor(predictor, artifact, chosen)
    if as_json:
        print_json(manifest.model_dump())
        return
    print_table(manifest_table(manifest, artifact.uri))

"""``distspectral serve RUN``: the trained model behind HTTP, until it is stopped."""

from __future__ import annotations

from typing import Annotated

import typer

from distspectral.cli.console import print_note
from distspectral.cli.options import RunPath

Host = Annotated[
    str, typer.Option("--host", help="Address to listen at; 0.0.0.0 = every network: nobody is asked for a password.")
]
Port = Annotated[int, typer.Option("--port", min=1, max=65535, help="Port to listen at.")]
Replicas = Annotated[int, typer.Option("--replicas", min=1, help="Processes that answer, a CPU or GPU each.")]
MaxBatch = Annotated[int, typer.Option("--max-batch", min=1, help="Rows at most of a request, and of a batch.")]
WaitMs = Annotated[
    float, typer.Option("--wait-ms", min=0, max=60_000, help="Milliseconds a row waits for others to join it.")
]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("serve")(serve)


def serve(
    run: RunPath,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    replicas: Replicas = 1,
    max_batch: MaxBatch = 1024,
    wait_ms: WaitMs = 2.0,
) -> None:
    """Answer rows sent by HTTP with embedding, cluster and distance, on Ray."""
    from distspectral.orchestration.serve import ServeConfig, serve_until_stopped
    from distspectral.serving.predictor import load_predictor
    from distspectral.storage.artifact.directory import Artifact
    from distspectral.storage.filesystems import absolute

    predictor = load_predictor(Artifact(absolute(run)))
    config = ServeConfig(host=host, port=port, replicas=replicas, max_batch=max_batch, wait_ms=wait_ms)
    serve_until_stopped(predictor, config, print_note)

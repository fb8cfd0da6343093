"""``distspectral bench serve``: a served model's latency and rate beside the bare module's."""

from __future__ import annotations

from typing import Annotated

import typer

from distspectral.cli.console import fact_table, print_json, print_table
from distspectral.cli.options import AsJson, run_root

RunPath = Annotated[
    str | None,
    typer.Argument(metavar="[RUN]", help="Directory of a finished run. [default: a model of random weights]"),
]
Dim = Annotated[int, typer.Option("--dim", min=1, help="Features of the random model, whose layers are 512 and 512.")]
Requests = Annotated[int, typer.Option("--requests", min=1, help="Requests of each case.")]
BatchRows = Annotated[int, typer.Option("--batch-rows", min=2, help="Rows of the larger requests.")]
Clients = Annotated[int, typer.Option("--clients", min=1, max=64, help="Clients that send single rows together.")]
Replicas = Annotated[int, typer.Option("--replicas", min=1, help="Processes that answer.")]
WaitMs = Annotated[float, typer.Option("--wait-ms", min=0, help="Milliseconds a row waits for others to join it.")]


def register(group: typer.Typer) -> None:
    """Add the benchmark to the group."""
    group.command("serve")(serve)


def serve(
    run: RunPath = None,
    dim: Dim = 64,
    requests: Requests = 500,
    batch_rows: BatchRows = 256,
    clients: Clients = 16,
    replicas: Replicas = 1,
    wait_ms: WaitMs = 2.0,
    as_json: AsJson = False,
) -> None:
    """Compare HTTP requests for single rows and batches with calls of the bare module: p50, p99, rows/s."""
    import functools

    from distspectral.bench.serve import RandomModel, cases, compare_serving
    from distspectral.orchestration.serve import ServeConfig, free_port, serving
    from distspectral.serving.predictor import load_predictor
    from distspectral.storage.artifact.directory import Artifact

    load = RandomModel(dim) if run is None else functools.partial(load_predictor, Artifact(run_root(run)))
    predictor = load()
    config = ServeConfig(port=free_port(), replicas=replicas, max_batch=max(1024, batch_rows), wait_ms=wait_ms)
    with serving(load, config) as address:
        result = compare_serving(address, predictor, cases(batch_rows, clients), requests)
    result["server"] = config.model_dump(exclude={"host", "port"})
    if as_json:
        print_json(result)
        return
    for case in result["cases"]:
        facts = [
            ("p50, p99", f"{case['p50_ms']:.2f}, {case['p99_ms']:.2f} ms"),
            ("p50, p99, bare", f"{case['bare_p50_ms']:.2f}, {case['bare_p99_ms']:.2f} ms"),
            ("rows per second", f"{case['rows_per_second']:,.0f}, {case['ratio_to_bare']:.1%} of the bare module's"),
        ]
        print_table(fact_table(case["name"], facts))
    print_table(fact_table("Machine", ((name, str(value)) for name, value in result["machine"].items())))

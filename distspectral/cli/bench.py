"""``distspectral bench NAME``: a result beside its baseline, both measured in this run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from distspectral.cli.bench_failures import chaos, elastic
from distspectral.cli.bench_labelled import choice, dscl, quality
from distspectral.cli.bench_map import bench_map
from distspectral.cli.bench_options import Root, folder_of_results, tell
from distspectral.cli.bench_simulate import simulate
from distspectral.cli.console import print_json, print_result
from distspectral.cli.options import AsJson, Local, Overrides

if TYPE_CHECKING:
    from distspectral.storage.source.dataset import Source

PLAN_ROWS = (20_000, 60_000, 180_000)
END_TO_END_ROWS = (100_000, 1_000_000)

Rows = Annotated[int, typer.Option("--rows", min=32, help="Generated rows.")]
Sizes = Annotated[
    list[int] | None, typer.Option("--rows", min=100, help="A size; may be repeated.", show_default=False)
]
Dim = Annotated[int, typer.Option("--dim", min=1, help="Features of generated rows.")]
Rounds = Annotated[int, typer.Option("--rounds", min=1, help="Timings of either side, in turns; medians count.")]


def register(app: typer.Typer) -> None:
    """Add the group of benchmarks."""
    group = typer.Typer(help="Measure results beside their baselines.", no_args_is_help=True)
    for command in (
        spectrum,
        graph,
        train,
        embed,
        dscl,
        dscl_cost,
        chaos,
        elastic,
        quality,
        choice,
        serve,
        plan,
        end_to_end,
    ):
        group.command(command.__name__.replace("_", "-"))(command)
    group.command("map")(bench_map)
    group.command("simulate")(simulate)
    app.add_typer(group, name="bench")


Functions = Annotated[
    int | None, typer.Option("--functions", metavar="N", min=1, help="Compare the lowest N functions. (default: all)")
]


def spectrum(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Directory of a finished run.", show_default=False)],
    functions: Functions = None,
    as_json: AsJson = False,
) -> None:
    """Compare a run with the exact eigenvectors of the graph it built, and with clusters found in those."""
    from distspectral.bench.spectrum import compare_with_exact
    from distspectral.storage.artifact.directory import Artifact

    print_result(f"Spectrum of {run}", compare_with_exact(Artifact(run), functions), as_json)


GraphRows = Annotated[int | None, typer.Option("--rows", min=32, help="Generated rows. (default: 100,000)")]
Data = Annotated[
    str | None, typer.Option("--data", metavar="PATH", help="Shards with a column `vector`; default: generated rows.")
]
Neighbors = Annotated[int, typer.Option("--neighbors", "-k", min=1, help="Neighbours of each row.")]
SearchMethods = Annotated[
    list[str] | None, typer.Option("--method", help="Only this one; may be repeated.", show_default=False)
]
Eigenvectors = Annotated[
    int, typer.Option("--functions", min=0, help="Compare that many eigenvectors with the exact graph's.")
]
Half = Annotated[bool, typer.Option("--float16", help="Store rows in half precision, as pack.dtype: float16 does.")]
SearchThreads = Annotated[int, typer.Option("--threads", min=1, help="Threads of each method's process.")]


def graph(
    rows: GraphRows = None,
    dim: Dim = 96,
    data: Data = None,
    neighbors: Neighbors = 15,
    method: SearchMethods = None,
    threads: SearchThreads = 1,
    float16: Half = False,
    functions: Eigenvectors = 0,
    as_json: AsJson = False,
) -> None:
    """Compare the neighbour search with pynndescent, FAISS HNSW, FAISS IVF-Flat and exact search."""
    from distspectral.bench.graph import METHODS, compare_searches
    from distspectral.errors import ConfigError

    if unknown := set(method or ()) - set(METHODS):
        raise ConfigError(f"--method: is {min(unknown)}; choose from {', '.join(METHODS)}")
    with folder_of_results(None) as folder:
        source = _bench_rows(rows, dim, data, folder)
        dtype: Literal["float16", "float32"] = "float16" if float16 else "float32"
        result = compare_searches(source, neighbors, method or METHODS, threads, dtype, functions)
    print_result("Neighbour search", result, as_json)


def _bench_rows(n_rows: int | None, dim: int, data: str | None, folder: str) -> Source:
    """Return shards given, or generated ones."""
    from distspectral.datasets import Mixture, write_mixture
    from distspectral.errors import ConfigError
    from distspectral.storage.source.dataset import Source, SourceConfig

    if data is not None:
        if n_rows is not None:
            raise ConfigError("--rows: is for generated rows; --data is taken whole")
        return Source.open(SourceConfig(path=data))
    return Source.open(SourceConfig(path=write_mixture(folder, Mixture(dim), n_rows or 100_000)))


TimedSteps = Annotated[int, typer.Option("--steps", min=2, help="Steps of each timing.")]


Ranks = Annotated[
    int, typer.Option("--ranks", min=1, help="Beyond 1: compare so many processes with one that has all threads.")
]


def train(
    rows: Rows = 100_000,
    dim: Dim = 96,
    steps: TimedSteps = 40,
    rounds: Rounds = 3,
    ranks: Ranks = 1,
    as_json: AsJson = False,
) -> None:
    """Compare the trainer's steps with bare forward and backward passes of the same networks, or ranks with one."""
    from distspectral.bench.train import compare_ranks, compare_training

    if ranks == 1:
        print_result("Training", compare_training(rows, dim, steps, rounds, "auto"), as_json)
    else:
        print_result("Ranks", compare_ranks(rows, dim, steps, rounds, "auto", ranks), as_json)


BatchRows = Annotated[
    int | None, typer.Option("--batch-rows", min=1, help="Rows of a batch, in both. (default: the stage's)")
]
Threads = Annotated[int | None, typer.Option("--threads", min=1, help="Threads of either. (default: all cores)")]
RowsFolder = Annotated[
    str | None, typer.Option("--folder", metavar="DIR", help="Keep the generated rows here. (default: nowhere)")
]


def embed(
    rows: Rows = 1_000_000,
    dim: Dim = 64,
    batch_rows: BatchRows = None,
    threads: Threads = None,
    rounds: Rounds = 1,
    folder: RowsFolder = None,
    as_json: AsJson = False,
) -> None:
    """Compare embedding, an MLP D-512-512-10 with clusters and output, with a bare torch loop that writes nothing."""
    from distspectral.bench.embed import compare_embedding
    from distspectral.bench.machine import describe_machine
    from distspectral.stages.embed import EmbedConfig

    config = EmbedConfig() if batch_rows is None else EmbedConfig(batch_rows=batch_rows)
    result = compare_embedding(rows, dim, config, threads or describe_machine()["cores"], rounds, folder)
    print_result("Embedding", result, as_json)


Batches = Annotated[
    list[int] | None, typer.Option("--batch", help="Rows; may be repeated, ascending. (default: 1024, 2048, 4096)")
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
    print_result("Cost of the projector loss", result, as_json)


ServedRun = Annotated[
    str | None,
    typer.Argument(metavar="[RUN]", help="Directory of a finished run. (default: a model of random weights)"),
]
ModelDim = Annotated[
    int, typer.Option("--dim", min=1, help="Features of the random model, whose layers are 512 and 512.")
]
Requests = Annotated[int, typer.Option("--requests", min=1, help="Requests of each case.")]
RequestRows = Annotated[int, typer.Option("--batch-rows", min=2, help="Rows of the larger requests.")]
Clients = Annotated[int, typer.Option("--clients", min=1, max=64, help="Clients that send single rows together.")]
Replicas = Annotated[int, typer.Option("--replicas", min=1, help="Processes that answer.")]
WaitMs = Annotated[float, typer.Option("--wait-ms", min=0, help="Milliseconds a row waits for others to join it.")]


def serve(
    run: ServedRun = None,
    dim: ModelDim = 64,
    requests: Requests = 500,
    batch_rows: RequestRows = 256,
    clients: Clients = 16,
    replicas: Replicas = 1,
    wait_ms: WaitMs = 2.0,
    as_json: AsJson = False,
) -> None:
    """Compare HTTP requests for single rows and batches with calls of the bare module: p50, p99, rows/s."""
    from distspectral.bench.random_model import RandomModel
    from distspectral.bench.serve import cases, compare_serving
    from distspectral.orchestration.serve import ServeConfig, free_port, serving
    from distspectral.serving.predictor import load_predictor
    from distspectral.storage.artifact.directory import Artifact
    from distspectral.storage.filesystems import absolute

    predictor = RandomModel(dim)() if run is None else load_predictor(Artifact(absolute(run)))
    config = ServeConfig(port=free_port(), replicas=replicas, max_batch=max(1024, batch_rows), wait_ms=wait_ms)
    with serving(predictor, config) as served:
        result = compare_serving(served.address, predictor, cases(batch_rows, clients), requests)
    result["server"] = config.model_dump(exclude={"host", "port"})
    print_result("Serving", result, as_json)


def plan(rows: Sizes = None, dim: Dim = 32, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Run three sizes in one thread and compare each stage with what `distspectral plan` foretells."""
    from distspectral.bench.plan import compare_plan

    with folder_of_results(None) as folder:
        result = compare_plan(rows or PLAN_ROWS, dim, overrides or (), folder)
    if as_json:
        print_json(result)
        return
    for size in result["sizes"]:
        stages = {**size["stages"], "all": size["all"]}
        sizes = {key: value for key, value in size.items() if key.endswith("_bytes")}
        print_result(f"{size['rows']:,} rows x {dim}, one thread", {"stages": stages, "sizes": sizes})


Intrinsic = Annotated[int, typer.Option("--intrinsic-dim", min=1, help="Dimension of the manifold that rows lie on.")]


def end_to_end(
    rows: Sizes = None,
    dim: Dim = 64,
    intrinsic_dim: Intrinsic = 8,
    overrides: Overrides = None,
    root: Root = None,
    local: Local = False,
    as_json: AsJson = False,
) -> None:
    """Run the whole pipeline on generated rows of growing number: seconds, exponents, memory, recall, spectrum."""
    from distspectral.bench.end_to_end import compare_sizes
    from distspectral.datasets import Mixture

    with folder_of_results(root) as folder:
        mixture = Mixture(dim, intrinsic_dim)
        result = compare_sizes(rows or END_TO_END_ROWS, mixture, overrides or (), folder, local, tell)
    if as_json:
        print_json(result)
        return
    smallest = result["sizes"][0]
    exact = smallest.pop("exact", None)
    sizes = {size["rows"]: size for size in result["sizes"]}
    print_result("Whole runs", {**result, "sizes": sizes})
    if exact:
        print_result(f"Spectrum at {smallest['rows']:,} rows", exact)

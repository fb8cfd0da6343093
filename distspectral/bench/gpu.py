"""What this package does on one accelerator, beside what the accelerator can do; prints one table in some minutes.

``python -m distspectral.bench.gpu`` needs torch, NumPy, pyarrow, pydantic and FAISS, and nothing else: a bare machine
with a card is enough. On a CPU (``--device cpu``) it shows that it runs, and no more.

Shape letters: N rows, D features, B rows of a batch, K neighbours, E functions.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import itertools
import json
import platform
import socket
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from distspectral.bench.ranks import on_ranks
from distspectral.bench.train import compared_settings, ring
from distspectral.comm import collectives
from distspectral.datasets import Mixture
from distspectral.embedding.columns import RowColumns, columns_of
from distspectral.embedding.stream import Clock, stream
from distspectral.graph.search.exact import squared_distances
from distspectral.graph.search.faiss_search import GpuSearch, Search, import_faiss, knn, select_search
from distspectral.graph.search.halves import halves
from distspectral.graph.search.local import CellSolver
from distspectral.models.assigner import Assigner
from distspectral.models.embedder import Embedder, Precision
from distspectral.models.encoded import EncodedNetwork
from distspectral.models.networks import Perceptron
from distspectral.precision import TrainPrecision
from distspectral.storage.rows.block import Block
from distspectral.training.loop import WindowRecorder

K = 15
DIMS = (10, 96, 768)
QUERIES = 300
"""Rows whose neighbours are compared with those of the CPU."""
PROFILED_STEPS = 30
BATCH_ROWS = 16_384
HIDDEN = (512, 512)
Device = Literal["cpu", "cuda"]


@dataclasses.dataclass(frozen=True)
class Line:
    """One measurement.

    Attributes:
        what: was measured.
        value: with its unit.
        beside: what bounds it, or what it should be.
        passed: whether it is right; None where there is no right or wrong.
    """

    what: str
    value: str
    beside: str = ""
    passed: bool | None = None


class Card:
    """The device, and how to time it.

    Args:
        device: ``cuda`` or, to try the script, ``cpu``.
    """

    def __init__(self, device: Device) -> None:
        self.device, self.torch_device = device, torch.device(device)

    def wait(self) -> None:
        """Wait for all that was begun."""
        if self.device == "cuda":
            torch.cuda.synchronize()

    def seconds(self, work: Callable[[], object], repeats: int = 3) -> float:
        """Return the median seconds of some calls, after one that warms up."""
        work()
        taken = []
        for _ in range(repeats):
            self.wait()
            began = time.perf_counter()
            work()
            self.wait()
            taken.append(time.perf_counter() - began)
        return statistics.median(taken)

    @property
    def width(self) -> int:
        """Of matrices that are large for the device."""
        return 8192 if self.device == "cuda" else 512

    def flops(self, dtype: torch.dtype) -> float:
        """Return the operations per second of the product of two large matrices."""
        width = self.width
        a, b = (torch.randn(width, width, device=self.torch_device, dtype=dtype) for _ in range(2))
        return 2 * width**3 / self.seconds(lambda: a @ b)

    def copied(self, n_bytes: int = 1 << 28) -> float:
        """Return bytes per second from page-locked host memory."""
        host = torch.empty(n_bytes, dtype=torch.uint8, pin_memory=self.device == "cuda")
        return n_bytes / self.seconds(lambda: host.to(self.torch_device, non_blocking=True, copy=True))

    def busy(self, work: Callable[[], object]) -> float | None:
        """Return the share of the time of ``work`` in which a kernel runs, None on a CPU."""
        if self.device == "cpu":
            return None
        from torch.profiler import ProfilerActivity, profile

        with profile(activities=[ProfilerActivity.CUDA]) as profiled:
            began = time.perf_counter()
            work()
            self.wait()
            seconds = time.perf_counter() - began
        return float(sum(event.self_device_time_total for event in profiled.key_averages()) / 1e6 / seconds)


# ---- neighbours --------------------------------------------------------------------------------------------------


def searches(card: Card, n_rows: int) -> Iterator[Line]:
    """Yield recall and rate of FAISS in float32, of its products of halves, and of a cell as the graph solves it."""
    for dim in DIMS:
        rows = Mixture(dim).rows(0, n_rows)[0]
        yield from searches_of(card, rows - rows.mean(axis=0), select_search(card.device))


def searches_of(card: Card, rows: NDArray[np.float32], search: Search) -> Iterator[Line]:
    """Yield the lines of some rows (N, D), centred, and of FAISS's search on the device."""
    n_rows, dim = rows.shape
    asked = np.sort(np.random.default_rng(0).choice(n_rows, QUERIES, replace=False))
    true = knn(rows[asked], rows, K + 1)[0][:, -1:]
    solver = CellSolver("exact", K, 1.0, 0, card.device)
    ways: dict[str, Callable[[], NDArray[np.float32]]] = {
        "FAISS float32": lambda: search(rows, rows, K + 1)[0][asked, 1:],
        "a cell, ranked": lambda: solver(np.arange(n_rows, dtype=np.int64), rows)[1][asked],
    }
    if isinstance(search, GpuSearch):  # a CPU is asked for no halves
        queries, base = (side.numpy() for side in halves(torch.from_numpy(rows)))
        gpu = search

        def proposed() -> NDArray[np.float32]:
            positions = gpu.largest_products(queries, base, 2 * (K + 1))[asked]
            return np.sort(squared_distances(rows[asked], rows, positions), axis=1)[:, 1 : K + 1]

        ways["FAISS halves"] = proposed
    for what, way in ways.items():
        yield _rate(f"{what}, {n_rows:,} x {dim}", n_rows, dim, card.seconds(way, 1))
        recall = float((way() <= true * (1 + 1e-4)).mean())  # products round
        yield Line(f"its recall, {dim} features", f"{recall:.4f}", "at least .985", recall >= 0.985)


def _rate(what: str, n_rows: int, dim: int, seconds: float) -> Line:
    pairs = n_rows**2 / seconds
    rate = f"{seconds * 1e6 / n_rows:.3f} us a row"
    return Line(what, rate, f"{pairs / 1e9:,.1f} G pairs/s, {2 * dim * pairs / 1e12:,.1f} Tflop/s")


# ---- ranks -------------------------------------------------------------------------------------------------------


def group(card: Card) -> Iterator[Line]:
    """Yield what a group of one rank says to tensors of the host and of the card, as training workers make it."""
    backends = collectives.GPU_BACKENDS if card.device == "cuda" else collectives.CPU_BACKEND
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    dist.init_process_group(backends, init_method=f"tcp://127.0.0.1:{port}", rank=0, world_size=1)
    try:
        for device in dict.fromkeys(("cpu", card.device)):
            tensor = torch.ones(600, dtype=torch.float64, device=device)
            seconds = card.seconds(lambda tensor=tensor: dist.all_reduce(tensor))  # type: ignore[misc]
            right = bool((tensor == 1).all())
            yield Line(f"all-reduce of 600 numbers on {device}", f"{seconds * 1e6:,.0f} us", backends, right)
        for name, settings in compared_settings(3, card.device).items():
            trainer = settings.trainer(*ring(20_000, 64))
            trainer.fit(WindowRecorder())
            yield Line(f"three steps in the group: {name}", "taken", backends, trainer.step == 3)
    finally:
        dist.destroy_process_group()


def two_ranks(card: Card) -> Iterator[Line]:
    """Yield whether two ranks that share the card take the step of one; over gloo, for NCCL wants a card for each."""
    n_threads = torch.get_num_threads()
    together, alone = (on_ranks(n_ranks, n_threads, _loss_of_rank, card.device) for n_ranks in (2, 1))
    apart = abs(together / alone - 1)
    yield Line("loss of two ranks beside one's, 20 steps", f"{apart:.1e} apart", "below 1e-3", apart < 1e-3)


def _loss_of_rank(device: Device) -> float:
    """Return the mean loss of some steps of the rank that calls."""
    trainer, recorder = compared_settings(20, device)["autoencoder"].trainer(*ring(20_000, 64)), WindowRecorder()
    trainer.fit(recorder)
    return float(recorder.history[-1]["loss"])


# ---- training ----------------------------------------------------------------------------------------------------


def trainings(card: Card, steps: int) -> Iterator[Line]:
    """Yield steps per second of every objective that multiplies in TF32 and in bfloat16, and how busy the card is."""
    data = ring(70_000, 784)
    precisions: tuple[TrainPrecision, ...] = ("float32", "bfloat16")
    for precision in precisions:
        peak = card.flops(getattr(torch, precision))
        yield Line(f"product of two {card.width:,}-matrices, {precision}", f"{peak / 1e12:,.2f} Tflop/s")
        for name, settings in compared_settings(steps, card.device, precision).items():
            trainer = settings.trainer(*data)
            weights = sum(parameter.numel() for parameter in trainer.network.parameters() if parameter.dim() > 1)
            rows = len(trainer.sampler.batch(0).vectors)
            began = time.perf_counter()
            trainer.fit(WindowRecorder())
            card.wait()
            rate = trainer.step / (time.perf_counter() - began)
            few = compared_settings(PROFILED_STEPS, card.device, precision)[name].trainer(*data)
            busy = card.busy(lambda few=few: few.fit(WindowRecorder()))  # type: ignore[misc]
            share = 6 * weights * rows * rate / peak
            words = f"{share:.1%} of the product's rate" + ("" if busy is None else f", kernels {busy:.0%} of the time")
            yield Line(f"{name}, {precision}", f"{rate:,.0f} steps/s", words)


# ---- embedding ---------------------------------------------------------------------------------------------------


def embeddings(card: Card, n_rows: int) -> Iterator[Line]:
    """Yield the bytes of rows per second that pass the network from host memory, beside a bare copy to the card."""
    copied = card.copied()
    yield Line("copy from page-locked memory", f"{copied / 1e9:,.1f} GB/s")
    precisions: tuple[Precision, ...] = ("float32", "bfloat16")
    without_map = columns_of("auto", has_map=False)
    for dim, precision in itertools.product((96, 768), precisions):
        rows = Mixture(dim).rows(0, BATCH_ROWS)[0]
        columns = RowColumns(_embedder(dim, precision), without_map, 1).eval().to(card.torch_device)
        n_batches = max(1, n_rows // BATCH_ROWS)

        def through(rows: NDArray[np.float32] = rows, columns: RowColumns = columns, n: int = n_batches) -> None:
            blocks = (Block(rows, None, None, index * BATCH_ROWS) for index in range(n))
            stream(blocks, columns, _drop, card.torch_device, Clock())

        rate = n_batches * rows.nbytes / card.seconds(through, 1)
        words = f"{rate / copied:.0%} of a copy, {rate / 4 / dim / 1e6:,.1f} M rows/s"
        yield Line(f"embedding {dim} features, {precision}", f"{rate / 1e9:,.1f} GB/s", words)


def _drop(block: Block, results: object) -> None:
    """Forget a batch's results."""


def _embedder(dim: int, precision: Precision) -> Embedder:
    """Return a network of random weights: speed does not depend on what is in them."""
    network = EncodedNetwork(Perceptron(dim, K, HIDDEN))
    return Embedder(network, Assigner(torch.ones(K), torch.randn(10, K), True, 1.0), precision)


# ---- the whole ---------------------------------------------------------------------------------------------------


def machine(card: Card) -> dict[str, str]:
    """Return the card and the versions that the numbers hold for."""
    name = torch.cuda.get_device_name() if card.device == "cuda" else platform.machine()
    return {
        "date": datetime.date.today().isoformat(),
        "device": name,
        "torch": torch.__version__,
        "CUDA": str(torch.version.cuda),
        "faiss": import_faiss().__version__,
        "python": platform.python_version(),
    }


def check(parts: Mapping[str, Callable[[], Iterator[Line]]]) -> Iterator[Line]:
    """Yield the measurements of all parts; one that breaks says so, and the next goes on."""
    for name, part in parts.items():
        try:
            yield from part()
        except Exception as error:  # whatever a card does wrong, the other parts are still worth their minutes
            yield Line(name, "failed", f"{type(error).__name__}: {error}", False)


def main() -> None:
    """Print the table; exit with 1 where something is wrong."""
    parser = argparse.ArgumentParser(prog="python -m distspectral.bench.gpu", description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--rows", type=int, default=100_000, help="of a cell; the GPU's default is about so many")
    parser.add_argument("--steps", type=int, default=300, help="of each training")
    parser.add_argument("--json", metavar="FILE", help="write the measurements there, too")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch sees no GPU here; --device cpu tries the script without one")
    card = Card(options.device)
    parts: dict[str, Callable[[], Iterator[Line]]] = {
        "search": lambda: searches(card, options.rows),
        "group": lambda: group(card),
        "ranks": lambda: two_ranks(card),
        "training": lambda: trainings(card, options.steps),
        "embedding": lambda: embeddings(card, 16 * options.rows),
    }
    facts, lines = machine(card), []
    print(", ".join(f"{name} {value}" for name, value in facts.items()), flush=True)
    for line in check(parts):
        lines.append(line)
        mark = {None: " ", True: "+", False: "!"}[line.passed]
        print(f"{mark} {line.what:<46} {line.value:>18}  {line.beside}", flush=True)
    if options.json:
        Path(options.json).write_text(json.dumps({**facts, "lines": [dataclasses.asdict(line) for line in lines]}))
    if any(line.passed is False for line in lines):
        raise SystemExit(1)


if __name__ == "__main__":
    main()

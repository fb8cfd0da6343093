"""What HTTP and Ray Serve cost: latency and rows per second beside the bare module in this process, on the same rows.

Shape letters: B rows, D features, P components, C clusters.
"""

from __future__ import annotations

import dataclasses
import http.client
import io
import json
import threading
import time
import urllib.parse
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from distspectral.bench.machine import describe_machine
from distspectral.errors import ConfigError
from distspectral.models.assigner import Assigner
from distspectral.models.embedder import Embedder
from distspectral.models.encoded import EncodedNetwork
from distspectral.models.networks import Perceptron
from distspectral.serving.predictor import Predictor
from distspectral.serving.service import JSON, NPY, Service

WARMUP_REQUESTS = 20


@dataclasses.dataclass(frozen=True)
class Case:
    """One way to ask.

    Attributes:
        name: of it.
        rows: in each request, B.
        clients: that ask at the same time, each as soon as it is answered.
        content_type: of the requests.
    """

    name: str
    rows: int
    clients: int
    content_type: str


@dataclasses.dataclass(frozen=True)
class RandomModel:
    """Makes a predictor of a stated size with random weights: speed does not depend on what is in them.

    Attributes:
        dim: D.
        hidden: units of each hidden layer.
        n_components: P.
        n_clusters: C.
    """

    dim: int
    hidden: tuple[int, ...] = (512, 512)
    n_components: int = 10
    n_clusters: int = 10

    def __call__(self) -> Predictor:
        """Return it, the same every time."""
        generator = torch.Generator().manual_seed(0)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = EncodedNetwork(Perceptron(self.dim, self.n_components, self.hidden))
        centroids = torch.randn(self.n_clusters, self.n_components, generator=generator)
        module = Embedder(network, Assigner(torch.ones(self.n_components), centroids, True, 1.0)).eval()
        card = {"what": "a network of random weights, for measurements"} | dataclasses.asdict(self)
        return Predictor(module, ("embedding", "cluster", "distance"), self.dim, 1.0, card, {})


def cases(batch_rows: int, clients: int) -> list[Case]:
    """Return what is measured: single rows from one client and from several, and batches from one."""
    return [
        Case("single rows, one client", 1, 1, JSON),
        Case(f"single rows, {clients} clients", 1, clients, JSON),
        Case(f"batches of {batch_rows:,}, one client", batch_rows, 1, NPY),
    ]


def compare_serving(address: str, predictor: Predictor, ways: Sequence[Case], n_requests: int) -> dict[str, Any]:
    """Return latency and rate of a server by case, those of the bare module, and their ratios.

    Bare is the same network called in this process on rows that are tensors already, one call for each request, with
    one thread as a replica has. Clients are threads of this process and share its cores with a local server.

    Args:
        address: of the server.
        predictor: what it serves.
        ways: cases.
        n_requests: of each case, after some to warm up.

    Raises:
        ConfigError: the server refuses a request.
    """
    generator = np.random.default_rng(0)
    results = []
    for case in ways:
        rows = generator.standard_normal((case.rows, predictor.dim)).astype(np.float32)
        served = _served(address, case, rows, n_requests)
        bare = _bare(predictor, rows, n_requests)
        results.append(
            {
                **dataclasses.asdict(case),
                "requests": n_requests,
                **served,
                **{f"bare_{name}": value for name, value in bare.items()},
                "ratio_of_p50": served["p50_ms"] / bare["p50_ms"],
                "ratio_to_bare": served["rows_per_second"] / bare["rows_per_second"],
            }
        )
    return {"machine": describe_machine(), "model": predictor.card, "cases": results}


def request_body(rows: NDArray[np.float32], content_type: str) -> bytes:
    """Return the body of a request for rows (B, D)."""
    if content_type == JSON:
        return json.dumps({"vectors": rows.tolist()}).encode()
    stream = io.BytesIO()
    np.save(stream, rows, allow_pickle=False)
    return stream.getvalue()


def _served(address: str, case: Case, rows: NDArray[np.float32], n_requests: int) -> dict[str, float]:
    """Return what the server took, all clients together."""
    body = request_body(rows, case.content_type)
    share = -(-n_requests // case.clients)
    seconds: list[float] = []
    failures: list[Exception] = []
    ready = threading.Barrier(case.clients + 1)

    def ask() -> None:
        connection = http.client.HTTPConnection(urllib.parse.urlsplit(address).netloc)
        try:
            for _ in range(WARMUP_REQUESTS):
                _post(connection, body, case.content_type)
            ready.wait()
            seconds.extend(_seconds(lambda: _post(connection, body, case.content_type), share))
        except Exception as error:
            failures.append(error)
            ready.abort()
        finally:
            connection.close()

    threads = [threading.Thread(target=ask) for _ in range(case.clients)]
    for thread in threads:
        thread.start()
    try:
        ready.wait()
        began = time.perf_counter()
    except threading.BrokenBarrierError:
        began = 0.0
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return _summary(seconds, case.rows * len(seconds) / (time.perf_counter() - began))


def _post(connection: http.client.HTTPConnection, body: bytes, content_type: str) -> None:
    connection.request("POST", "/embed", body, {"Content-Type": content_type})
    response = connection.getresponse()
    answer = response.read()
    if response.status != 200:
        raise ConfigError(f"POST /embed: answered {response.status}, {answer[:200].decode(errors='replace')}")


def _bare(predictor: Predictor, rows: NDArray[np.float32], n_requests: int) -> dict[str, float]:
    """Return what the module alone takes."""
    service = Service(predictor, len(rows))
    batch = torch.from_numpy(rows).to(service.device)

    @torch.inference_mode()
    def call() -> None:
        service.module(batch)[0].cpu()  # waits for a GPU

    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        _seconds(call, WARMUP_REQUESTS)
        seconds = _seconds(call, n_requests)
    finally:
        torch.set_num_threads(n_threads)
    return _summary(seconds, len(rows) * n_requests / sum(seconds))


def _seconds(call: Callable[[], None], times: int) -> list[float]:
    seconds = []
    for _ in range(times):
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    return seconds


def _summary(seconds: Sequence[float], rows_per_second: float) -> dict[str, float]:
    p50, p99 = np.percentile(np.asarray(seconds) * 1e3, [50, 99]).tolist()
    return {"p50_ms": p50, "p99_ms": p99, "rows_per_second": rows_per_second}

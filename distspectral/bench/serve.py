"""What HTTP and Ray cost: latency and rows per second beside the bare module in this process, on the same rows.

Shape letters: B rows, D features.
"""

from __future__ import annotations

import dataclasses
import functools
import http.client
import io
import json
import time
import urllib.parse
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from distspectral.bench.machine import describe_machine
from distspectral.errors import ConfigError
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
    connections = [http.client.HTTPConnection(urllib.parse.urlsplit(address).netloc) for _ in range(case.clients)]

    def ask(connection: http.client.HTTPConnection, times: int) -> list[float]:
        return _seconds(lambda: _post(connection, body, case.content_type), times)

    try:
        with ThreadPoolExecutor(case.clients) as pool:
            list(pool.map(functools.partial(ask, times=WARMUP_REQUESTS), connections))
            began = time.perf_counter()
            share = -(-n_requests // case.clients)
            seconds = [one for found in pool.map(functools.partial(ask, times=share), connections) for one in found]
            return _summary(seconds, case.rows * len(seconds) / (time.perf_counter() - began))
    finally:
        for connection in connections:
            connection.close()


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

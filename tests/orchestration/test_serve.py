from __future__ import annotations

import contextlib
import http.client
import importlib
import io
import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from typer.testing import CliRunner

from distspectral.bench.random_model import RandomModel
from distspectral.bench.serve import Case, compare_serving, request_body
from distspectral.cli.app import EXIT_REFUSED, app
from distspectral.config import load_config
from distspectral.errors import ConfigError, MissingDependencyError
from distspectral.orchestration.serve import ServeConfig, free_port, serving
from distspectral.serving.service import JSON, NPY

DIM = 6
MODEL = RandomModel(DIM, (16,), n_components=4, n_clusters=3)
ROWS = np.random.default_rng(0).standard_normal((40, DIM)).astype(np.float32)


def test_without_the_extra_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "distspectral.serving.http", raising=False)
    monkeypatch.delitem(sys.modules, "distspectral.orchestration.serve")
    with pytest.raises(MissingDependencyError, match=r"pip install '\.\[serve\]'"):
        importlib.import_module("distspectral.orchestration.serve")


def test_a_run_that_is_not_finished_is_refused_before_ray_starts(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["serve", str(tmp_path)])
    assert result.exit_code == EXIT_REFUSED
    assert f"{tmp_path}: holds no finished run" in result.stderr.replace("\n", "")


@pytest.fixture(scope="module")
def address(ray_cluster: None) -> Iterator[str]:
    with serving(MODEL(), ServeConfig(port=free_port(), max_batch=16, wait_ms=5)) as served:
        yield served.address
    import ray

    assert ray.is_initialized(), "it goes on without us"


def ask(address: str, method: str, path: str, body: bytes = b"", kind: str = "") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=30)
    try:
        connection.request(method, path, body, {"Content-Type": kind} if kind else {})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def expected(rows: np.ndarray) -> dict[str, np.ndarray]:
    predictor = MODEL()
    with torch.inference_mode():
        outputs = predictor.module(torch.from_numpy(rows))
    return {name: output.numpy() for name, output in zip(predictor.outputs, outputs, strict=True)}


def assert_is_right(answer: Any, rows: np.ndarray) -> None:
    for name, output in expected(rows).items():
        np.testing.assert_allclose(answer[name], output, rtol=1e-4, atol=1e-5)


@pytest.mark.ray
@pytest.mark.slow
def test_http_answers_rows_with_embedding_cluster_and_distance(address: str) -> None:
    status, body = ask(address, "POST", "/embed", request_body(ROWS[:3], JSON), JSON)
    assert status == 200
    assert_is_right(json.loads(body), ROWS[:3])
    status, body = ask(address, "POST", "/embed", request_body(ROWS[:16], NPY), NPY)
    assert status == 200
    assert_is_right(np.load(io.BytesIO(body)), ROWS[:16])
    assert ask(address, "GET", "/health") == (200, b'{"status":"ok"}')
    assert json.loads(ask(address, "GET", "/model")[1])["dim"] == DIM


@pytest.mark.ray
@pytest.mark.slow
def test_clients_that_ask_together_get_each_their_own_rows(address: str) -> None:
    parts = [ROWS[start : start + 1 + start % 3] for start in range(37)]
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda rows: ask(address, "POST", "/embed", request_body(rows, JSON), JSON), parts))
    for (status, body), rows in zip(answers, parts, strict=True):
        assert status == 200
        assert_is_right(json.loads(body), rows)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "path", "body", "kind", "status", "message"),
    [
        ("POST", "/embed", b'{"vectors": [[1, 2]]}', JSON, 400, "row 0: has width 2, the model takes 6"),
        ("POST", "/embed", b'{"vectors": [[1, 2, 3, 4, 5, NaN]]}', JSON, 400, "row 0, feature 5: found NaN"),
        ("POST", "/embed", request_body(ROWS[:17], NPY), NPY, 413, "17 rows, 16 are answered at once"),
        ("POST", "/embed", b" " * 10_000, JSON, 413, "send fewer rows"),
        ("POST", "/embed", b"1,2", "text/csv", 415, "Content-Type: is text/csv"),
        ("GET", "/embed", b"", "", 404, "there are POST /embed"),
    ],
)
def test_what_cannot_be_answered_is_a_4xx_that_says_why(
    address: str, method: str, path: str, body: bytes, kind: str, status: int, message: str
) -> None:
    found, answer = ask(address, method, path, body, kind)
    assert found == status
    assert message in json.loads(answer)["error"]


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_replica_that_is_lost_comes_back_with_the_model_of_before(address: str) -> None:
    sent = request_body(ROWS[:3], JSON)
    for process in psutil.Process().children(recursive=True):
        if process.name().startswith("ray::Replica"):
            process.kill()
    status, body = ask(address, "POST", "/embed", sent, JSON)
    while status == 503:  # it is on its way
        time.sleep(0.2)
        status, body = ask(address, "POST", "/embed", sent, JSON)
    assert status == 200
    assert_is_right(json.loads(body), ROWS[:3])


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_served_run_is_pinned_and_ends_within_seconds_without_a_404(
    finished_run: Path, tmp_path: Path, number: signal.Signals
) -> None:
    root, port = tmp_path / "root", free_port()
    shutil.copytree(load_config(finished_run).root, root)
    command = [sys.executable, "-m", "distspectral", "serve", str(root), "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        told = next(line for line in process.stdout if "answers POST /embed" in line)
        address = told.split()[0]
        model = json.loads(ask(address, "GET", "/model")[1])
        sent = request_body(np.ones((2, 5), np.float32), JSON)
        before = ask(address, "POST", "/embed", sent, JSON)
        manifest = json.loads((root / "clusters" / ".manifest.json").read_text())
        assert model["fingerprints"]["cluster"] == manifest["fingerprint"]

        shutil.rmtree(root)  # whatever becomes of it
        for child in psutil.Process(process.pid).children(recursive=True):
            if child.name().startswith("ray::Replica"):
                child.kill()
        after = ask(address, "POST", "/embed", sent, JSON)
        while after[0] == 503:
            time.sleep(0.2)
            after = ask(address, "POST", "/embed", sent, JSON)
        assert after == before

        statuses: list[int] = []

        def client() -> None:
            with contextlib.suppress(OSError, http.client.HTTPException):
                while True:
                    statuses.append(ask(address, "POST", "/embed", sent, JSON)[0])

        threads = [threading.Thread(target=client) for _ in range(4)]
        for thread in threads:
            thread.start()
        while len(statuses) < 20:
            time.sleep(0.01)
        process.send_signal(number)
        began = time.monotonic()
        said = process.stdout.read()
        assert process.wait() == 0
        assert time.monotonic() - began < 30
        for thread in threads:
            thread.join()
    assert set(statuses) == {200}
    assert said.splitlines()[-2:] == ["takes no more requests, and ends those that have begun", "stopped"]


@pytest.mark.ray
@pytest.mark.slow
def test_the_benchmark_states_latency_and_rate_beside_the_bare_module(address: str) -> None:
    ways = [Case("single", 1, 3, JSON), Case("batch", 16, 1, NPY)]
    result = compare_serving(address, MODEL(), ways, 12)
    assert result["machine"]["cores"] >= 1
    for case in result["cases"]:
        assert 0 < case["p50_ms"] <= case["p99_ms"]
        assert case["ratio_to_bare"] == pytest.approx(case["rows_per_second"] / case["bare_rows_per_second"])
    with pytest.raises(ConfigError, match="answered 413"):
        compare_serving(address, MODEL(), [Case("too many", 17, 2, NPY)], 1)

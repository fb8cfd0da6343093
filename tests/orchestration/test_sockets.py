"""A run and a server walked from outside: what listens does so at the loopback address, and asks for the token."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psutil
import pytest

from distspectral.config import load_config
from distspectral.orchestration.connection import is_loopback
from distspectral.orchestration.serve import free_port
from tests.runs import write_run
from tests.sockets import Listener, answers, family, listeners

PATIENCE_S = 240
TRAINING = {"batch_size": 2048, "max_steps": 100_000, "window_steps": 10, "checkpoint_steps": 20, "patience": 0}


@contextlib.contextmanager
def started(arguments: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    """A command with no word of the environment about authentication, killed in the end."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    command = [sys.executable, "-m", "distspectral", *arguments]
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()


def walk(process: subprocess.Popen[bytes], is_over: Callable[[], bool], own_port: int = 0) -> set[Listener]:
    """Look again and again, speak to each socket once, and return what listened."""
    seen: set[Listener] = set()
    spoken_to: set[int] = {own_port}
    deadline = time.monotonic() + PATIENCE_S
    while not is_over():
        assert process.poll() is None, "it ended"
        assert time.monotonic() < deadline, "it hangs"
        found = set(listeners(family(process.pid)))
        for port in {one.port for one in found} - spoken_to:
            assert answers(port) == [], [one for one in found if one.port == port]
            spoken_to.add(port)
        seen |= found
        time.sleep(0.2)
    return seen


def outward(found: set[Listener]) -> list[Listener]:
    return [one for one in found if not is_loopback(one.address)]


def tokens(processes: list[psutil.Process]) -> set[str]:
    return {process.environ()["RAY_AUTH_TOKEN"] for process in processes if "raylet" in process.name()}


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_listens_for_itself_alone_also_after_its_driver_was_killed(tmp_path: Path) -> None:
    config = write_run(tmp_path, train=TRAINING, network={"hidden": [256]}, ray={"workers": 2})
    log = tmp_path / "root" / "training" / "metrics.jsonl"
    with started(["run", str(config), "--quiet"]) as process:
        found = walk(process, lambda: log.exists() and log.stat().st_size > 0)
        assert outward(found) == []
        assert any("RayTrainWorker" in one.process for one in found)
        assert any("DashboardAgent" in one.process for one in found)

        processes = family(process.pid)
        (token,) = tokens(processes)
        assert len(token) == 64
        assert not any(token in " ".join(one.cmdline()) for one in processes)
        process.send_signal(signal.SIGKILL)
        process.wait()
        left = set(listeners(processes))
        assert outward(left) == []
        assert [answers(one.port) for one in left] == [[]] * len(left)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_serve_listens_for_itself_alone_but_for_its_address(finished_run: Path) -> None:
    port = free_port()
    with started(["serve", load_config(finished_run).root, "--port", str(port)]) as process:

        def is_up() -> bool:
            return any(one.port == port for one in listeners(family(process.pid)))

        found = walk(process, is_up, own_port=port)
        at_last = set(listeners(family(process.pid)))
        assert outward(found | at_last) == []
        assert [one for one in at_last if one.port != port and answers(one.port)] == []
        assert any("Replica" in one.process for one in at_last)


def test_what_reaches_this_machine_only() -> None:
    addresses = ("127.0.0.1", "::1", "::ffff:127.0.0.1", "0.0.0.0", "::", "192.0.2.2", "::ffff:192.0.2.2")
    assert [is_loopback(address) for address in addresses] == [True] * 3 + [False] * 4

"""Commands that are told to end, each a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from distspectral.storage.artifact.holding import HOLDERS
from tests import kill
from tests.runs import write_run

PATIENCE_S = 120
"""For a run to come to where it is to be stopped; the machine may be busy."""
SOON_S = 30
"""Some times what is promised, for a busy machine."""
LONG = {"batch_size": 64, "max_steps": 10**7, "window_steps": 10, "patience": 0, "device": "cpu"}
IN_A_LIBRARY = """
import hashlib, pathlib, sys, threading
from distspectral.cli import ending, run
ending.GRACE_S = float(sys.argv.pop(1))
there = pathlib.Path(sys.argv.pop(1))
begins = threading.Event()
def last_words():
    begins.wait()
    there.touch()
threading.Thread(target=last_words, daemon=True).start()
sys.setswitchinterval(1000)  # so that it is there once the library is, and not before
run.run_config = lambda *_: (begins.set(), hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9))
from distspectral.cli.app import main
main()
"""


def lives(process: psutil.Process) -> bool:
    """Return whether a process has not ended; one that has may wait for its heir, the machine's first, to notice."""
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


class Told:
    """A command that is told to end once it has come somewhere; what became of it."""

    def __init__(self, command: list[str], there: Callable[[], bool], *signals: int, group: bool = False) -> None:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "start_new_session": True}
        process = subprocess.Popen([sys.executable, *command], env=os.environ | {"OMP_NUM_THREADS": "1"}, **pipes)  # type: ignore[call-overload]
        deadline = time.monotonic() + PATIENCE_S
        while not there():
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.02)
        family = psutil.Process(process.pid).children(recursive=True)
        began = time.monotonic()
        for number in signals:
            os.killpg(process.pid, number) if group else process.send_signal(number)
            time.sleep(0.3)
        self.output = process.communicate(timeout=PATIENCE_S)[0]
        self.seconds, self.code = time.monotonic() - began, process.returncode
        _, here = psutil.wait_procs(family, timeout=SOON_S)
        self.left = [one for one in here if lives(one)]


def run(folder: Path, *options: str) -> tuple[list[str], Callable[[], bool]]:
    log = folder / "root" / "training" / "metrics.jsonl"
    command = ["-m", "distspectral", "run", str(write_run(folder, train=LONG)), *options]
    return command, lambda: log.exists() and log.stat().st_size > 0


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)], ids=lambda it: str(it)
)
def test_a_run_that_is_told_to_end_does_and_says_how_to_go_on(tmp_path: Path, number: int, code: int) -> None:
    told = Told(*run(tmp_path, "--local"), number)
    assert told.code == code
    assert told.output.splitlines()[-1] == "stopped; run again to go on"
    assert "Traceback" not in told.output
    assert told.seconds < SOON_S
    assert not (tmp_path / "root" / HOLDERS).exists(), "the root is let go"


def in_a_library(folder: Path, grace_s: float) -> tuple[list[str], Callable[[], bool]]:
    there = folder / "there"
    return ["-c", IN_A_LIBRARY, str(grace_s), str(there), "run", str(write_run(folder))], there.exists


def test_a_command_ends_in_time_while_a_library_hears_nothing(tmp_path: Path) -> None:
    told = Told(*in_a_library(tmp_path, 1.0), signal.SIGTERM)
    assert (told.code, told.output) == (143, "stopped; run again to go on\n")
    assert told.seconds > 1


def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    told = Told(*in_a_library(tmp_path, 10.0 * PATIENCE_S), signal.SIGINT, signal.SIGINT)
    assert (told.code, told.output) == (130, "stopped; run again to go on\n")


@pytest.mark.ray
@pytest.mark.clusters
@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("signals", "code"),
    [((signal.SIGTERM,), 143), ((signal.SIGINT,), 130), ((signal.SIGINT, signal.SIGINT), 130)],
    ids=["term", "ctrl-c", "ctrl-c twice"],
)
def test_a_training_under_ray_that_is_told_to_end_does_and_leaves_no_process(
    tmp_path: Path, signals: tuple[int, ...], code: int
) -> None:
    told = Told(*run(tmp_path), *signals, group=True)
    assert told.code == code, told.output
    assert told.output.splitlines()[-1] == "stopped; run again to go on"
    assert told.seconds < SOON_S
    assert told.left == []


@pytest.mark.ray
@pytest.mark.clusters
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_lost_controller_is_replaced_and_training_goes_on_from_the_checkpoint(tmp_path: Path) -> None:
    train = LONG | {"batch_size": 1024, "max_steps": 300, "checkpoint_steps": 20}
    config = write_run(tmp_path, train=train, network={"hidden": [256]})
    command = kill.run_in_training(30, "controller", "run", config)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    done = subprocess.run(command, env=environment, check=False, **pipes)
    assert done.returncode == 0, done.stdout
    assert "Ray Train's controller, a process beside this one, was lost" in done.stdout
    lines = (tmp_path / "root" / "training" / "metrics.jsonl").read_text().splitlines()
    steps = [json.loads(line)["step"] for line in lines]
    assert steps == list(range(10, 301, 10)), "no window is lost or repeated"

"""Programs that die of SIGKILL at a moment of their own choice: a test that kills from outside would have to be quick.

A process arms itself before it runs a stage, a command or a training. What it reaches the moment in may be a worker of
Ray's on the same machine; that one kills whoever is to die, and then does nothing more until Ray ends it.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any, Literal, NoReturn

import psutil

from distspectral.errors import ArtifactError
from distspectral.storage.artifact import receipts
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.artifact.manifest import Shard

TRAINING = "training"
"""Folder of the eigenfunctions' training."""
Whom = Literal["driver", "controller", "rank 0"]

AFTER_RECEIPTS = """
import sys
from tests import kill
kill.after_receipts(sys.argv.pop(1), int(sys.argv.pop(1)))
"""
IN_TRAINING = """
import sys
from tests import kill
kill.in_training(int(sys.argv.pop(1)), sys.argv.pop(1))
"""
COMMAND = """
from distspectral.cli.app import main
main()
"""


def run_after_receipts(prefix: str, number: int, *arguments: object) -> list[str]:
    """Return the command line of ``distspectral`` that dies as :func:`after_receipts` says."""
    return [sys.executable, "-c", AFTER_RECEIPTS + COMMAND, prefix, str(number), *map(str, arguments)]


def run_in_training(step: int, whom: Whom, *arguments: object) -> list[str]:
    """Return the command line of ``distspectral`` in which a process dies as :func:`in_training` says."""
    return [sys.executable, "-c", IN_TRAINING + COMMAND, str(step), whom, *map(str, arguments)]


def after_receipts(prefix: str, number: int = 1) -> None:
    """Let this process die when so many receipts stand beside each other, written by it or by a task or actor for it.

    Args:
        prefix: folder of the artifact, a slash, and what the names of the shards begin with.
        number: of such receipts.
    """
    from distspectral.orchestration.engine import RayEngine

    death = _AfterReceipts(os.getpid(), prefix, number)
    death.arm()
    make = RayEngine.mapper

    def mapper(self: RayEngine, stage: Any) -> Any:
        map_items = make(self, stage)

        def deadly(
            function: Callable[[Any], Any], items: Sequence[Any], description: str, *, on_gpu: bool = False
        ) -> Iterator[Any]:
            return map_items(_Armed(death, function), items, description, on_gpu=on_gpu)

        return deadly

    RayEngine.mapper = mapper  # type: ignore[method-assign]


def in_training(step: int, whom: Whom = "driver") -> None:
    """Let a process die when the eigenfunctions' training under Ray has come so far; see :func:`deadly_rank`."""
    from distspectral.orchestration import train

    train._train_rank = deadly_rank(step, whom)  # type: ignore[assignment]


def deadly_rank(step: int, whom: Whom) -> Callable[[dict[str, Any]], Any]:
    """Return what trains one rank, and kills once the window of a step is written and a whole checkpoint stands.

    A training that goes on from a checkpoint is left alone.

    Args:
        step: the window's last.
        whom: this process, Ray Train's controller, or the first of its workers.
    """
    from distspectral.orchestration.train import _train_rank

    return _Armed(_InTraining(os.getpid(), step, whom), _train_rank)


# ---- in the process that reaches the moment -----------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Armed:
    """A function whose process kills, once it was called, when the moment comes."""

    death: _AfterReceipts | _InTraining
    function: Callable[[Any], Any]

    def __call__(self, item: Any) -> Any:
        self.death.arm(item)
        return self.function(item)


@dataclasses.dataclass(frozen=True)
class _AfterReceipts:
    driver: int
    prefix: str
    number: int

    def arm(self, item: Any = None) -> None:
        write = receipts.write_receipt
        if getattr(write, "is_deadly", False):
            return

        def write_and_kill(artifact: Artifact, shard: Shard) -> Shard:
            written = write(artifact, shard)
            folder = PurePosixPath(artifact.path).name
            names = [f"{folder}/{entry.base_name}" for entry in artifact.entries(receipts.RECEIPTS)]
            if sum(name.startswith(self.prefix) and name.endswith(".json") for name in names) >= self.number:
                _kill(self.driver)
            return written

        write_and_kill.is_deadly = True  # type: ignore[attr-defined]
        receipts.write_receipt = write_and_kill


@dataclasses.dataclass(frozen=True)
class _InTraining:
    driver: int
    step: int
    whom: str

    def arm(self, config: Any) -> None:
        from distspectral.orchestration.train import RayTrainingObserver
        from distspectral.training.checkpoint import checkpoint_names

        artifact = config["artifact"]
        if PurePosixPath(artifact.path).name != TRAINING or checkpoint_names(artifact):
            return
        window = RayTrainingObserver.window

        def window_and_kill(observer: RayTrainingObserver, record: dict[str, Any]) -> None:
            window(observer, record)
            if observer.log is not None and record["step"] == self.step:
                while not _holds_a_checkpoint(artifact):  # Ray stores it meanwhile
                    time.sleep(0.05)
                _kill({"driver": self.driver, "rank 0": os.getpid()}.get(self.whom) or _controller())

        RayTrainingObserver.window = window_and_kill  # type: ignore[method-assign]


def _holds_a_checkpoint(artifact: Artifact) -> bool:
    """Whether there is one that can be read."""
    from distspectral.models.state import restored
    from distspectral.training.checkpoint import checkpoint_names

    try:
        return any(restored(artifact, name, bool) for name in checkpoint_names(artifact))
    except ArtifactError:
        return False


def _controller() -> int:
    """Return the process id of Ray Train's controller, a child of the same raylet."""
    beside = psutil.Process(os.getppid()).children()
    (found,) = [one.pid for one in beside if "TrainController" in " ".join(one.cmdline())]
    return found


def _kill(victim: int) -> NoReturn:
    os.kill(victim, signal.SIGKILL)
    while True:
        time.sleep(60)

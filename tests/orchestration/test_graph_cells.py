"""The search through cells as Ray tasks: a killed worker and other numbers of workers change no bit of the graph."""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from distspectral.config.ray import RayConfig
from distspectral.datasets import Mixture
from distspectral.graph.config import GraphConfig
from distspectral.orchestration.tasks import task_mapper
from distspectral.stages.neighbors import neighbors
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.artifact.output import Output
from tests.datasets import packed

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]

ROWS = Mixture(8, intrinsic_dim=3, n_clusters=4).rows(0, 4000)[0]
CONFIG = GraphConfig(n_neighbors=6, method="cells", block_rows=700, solver="exact")


def output(folder: Path) -> Output:
    return Output(Artifact(str(folder)), "neighbors", "fingerprint", {}, {})


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.glob("*.arrow"))}


class Deadly:
    """Calls a task's function; once in each step the worker is killed after its work, once in all also before it."""

    def __init__(self, function: Callable[[Any], Any], marks: Path, step: str) -> None:
        self.function, self.marks, self.step = function, marks, step

    def __call__(self, item: Any) -> Any:
        before, after = self.marks / "before", self.marks / f"after {self.step}"
        if not before.exists():
            before.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        result = self.function(item)
        if not after.exists():
            after.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return result


def test_workers_killed_before_and_after_their_work_change_no_bit(tmp_path: Path) -> None:
    vectors = packed(tmp_path, ROWS, sizes=(1500, 2500))
    neighbors(vectors, output(tmp_path / "alone"), CONFIG)
    marks = tmp_path / "marks"
    marks.mkdir()
    mapper = task_mapper(RayConfig(task_retries=3))

    def deadly(function: Callable[[Any], Any], items: Sequence[Any], description: str) -> Iterator[Any]:
        return iter(mapper(Deadly(function, marks, description), items, description))

    neighbors(vectors, output(tmp_path / "killed"), CONFIG, deadly)
    assert len(list(marks.iterdir())) == 5, "one kill before any work, and one after it in each of four steps"
    assert digests(tmp_path / "killed") == digests(tmp_path / "alone")

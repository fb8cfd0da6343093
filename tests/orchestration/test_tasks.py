"""Items as Ray tasks; a killed worker and other numbers of workers change no bit of a graph."""

from __future__ import annotations

import functools
import hashlib
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from distspectral.config.ray import RayConfig
from distspectral.datasets import Mixture
from distspectral.errors import NonFiniteRowError, WorkerLostError
from distspectral.graph.config import GraphConfig
from distspectral.orchestration.tasks import LEAST_WAITING, task_mapper
from distspectral.stages.neighbors import neighbors
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.artifact.output import Output
from tests.datasets import packed

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]


def square(number: int) -> int:
    return number * number


def wait(item: int, *, marker: Path) -> int:
    """Return at once, but for item 0: when the marker is there."""
    while item == 0 and not marker.exists():
        time.sleep(0.01)
    return item


def refuse(item: int, *, calls: Path) -> int:
    (calls / str(time.time_ns())).touch()
    raise NonFiniteRowError(f"part-00003.parquet: row {item} holds NaN")


def divide(item: int) -> float:
    return 1 / item


def die(item: int, *, marker: Path, always: bool) -> int:
    if item == 1 and (always or not marker.exists()):
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def threads(_: int) -> dict[str, Any]:
    import numpy as np
    from threadpoolctl import threadpool_info

    np.ones((2, 2)) @ np.ones((2, 2))
    return {"omp": os.environ["OMP_NUM_THREADS"], "pools": [pool["num_threads"] for pool in threadpool_info()]}


def test_every_item_comes_back_once() -> None:
    assert sorted(task_mapper(RayConfig())(square, range(20), "squaring")) == [n * n for n in range(20)]
    assert list(task_mapper(RayConfig())(square, [], "squaring")) == []


def test_results_come_in_the_order_of_completion(tmp_path: Path) -> None:
    marker = tmp_path / "heard of 1"
    results = iter(task_mapper(RayConfig())(functools.partial(wait, marker=marker), [0, 1], "waiting"))
    assert next(results) == 1
    marker.touch()
    assert list(results) == [0]


def test_the_users_error_arrives_as_raised_and_is_not_retried(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteRowError) as caught:
        list(task_mapper(RayConfig())(functools.partial(refuse, calls=tmp_path), [7], "packing"))
    assert type(caught.value) is NonFiniteRowError
    assert str(caught.value) == "part-00003.parquet: row 7 holds NaN"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_foreign_error_keeps_its_class_too() -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        list(task_mapper(RayConfig())(divide, [0], "dividing"))
    assert type(caught.value) is ZeroDivisionError


def test_a_killed_worker_is_retried(tmp_path: Path) -> None:
    function = functools.partial(die, marker=tmp_path / "killed", always=False)
    assert sorted(task_mapper(RayConfig(task_retries=1))(function, range(4), "dying once")) == [0, 1, 2, 3]
    assert (tmp_path / "killed").exists()


def test_a_worker_killed_too_often_is_explained(tmp_path: Path) -> None:
    function = functools.partial(die, marker=tmp_path / "killed", always=True)
    with pytest.raises(WorkerLostError, match=r"dying: an item's worker was lost 2 times.*ray\.cpus_per_task"):
        list(task_mapper(RayConfig(task_retries=1))(function, [1], "dying"))


def test_a_bounded_number_of_tasks_is_in_flight() -> None:
    class Items(list[int]):
        taken = 0

        def __iter__(self) -> Any:
            for item in range(1000):
                self.taken += 1
                yield item

    items = Items()
    results = task_mapper(RayConfig())(square, items, "squaring")
    next(results)
    assert items.taken <= 2 + LEAST_WAITING
    results.close()  # type: ignore[attr-defined]


def test_a_task_has_as_many_threads_as_cpus() -> None:
    (seen,) = task_mapper(RayConfig(cpus_per_task=1))(threads, [0], "counting threads")
    assert seen["pools"], "threadpoolctl sees no library"
    assert set(seen["pools"]) == {1}


# ---- the search through cells ------------------------------------------------------------------------------------

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

    def deadly(
        function: Callable[[Any], Any], items: Sequence[Any], description: str, *, on_gpu: bool = False
    ) -> Iterator[Any]:
        return iter(mapper(Deadly(function, marks, description), items, description, on_gpu=on_gpu))

    neighbors(vectors, output(tmp_path / "killed"), CONFIG, deadly)
    assert len(list(marks.iterdir())) == 8, "one kill before any work, and one after it in each of seven steps"
    assert digests(tmp_path / "killed") == digests(tmp_path / "alone")

"""Items over a pool of Ray Data actors: each result once, errors as they were raised."""

from __future__ import annotations

import os
import signal

import pytest
import ray

from distspectral.config.ray import ActorCount, RayConfig
from distspectral.devices import gpus_are_hidden
from distspectral.errors import NonFiniteRowError, WorkerLostError
from distspectral.orchestration.actors import ACTORS_TO_GROW, actor_mapper, pool_bounds

pytestmark = pytest.mark.ray


def process_of(item: tuple[str, int]) -> tuple[str, int, int]:
    return (*item, os.getpid())


def twice(item: int) -> tuple[int, int]:
    return item, item


def divide(item: int) -> float:
    return 1 / item


def sees_no_gpus(item: int) -> bool:
    return gpus_are_hidden()


def die(item: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def refuse(item: int) -> int:
    if item == 1:
        raise NonFiniteRowError("part-00001.parquet: row 7")
    return item


def test_every_item_gives_one_result_from_few_processes(ray_cluster: None) -> None:
    items = [(f"part-{i}", i) for i in range(9)]
    mapper = actor_mapper(RayConfig(actors=ActorCount(min=1, max=2)))
    results = list(mapper(process_of, items, "embedding"))
    assert sorted(result[:2] for result in results) == items
    assert len({result[2] for result in results}) <= 2
    assert os.getpid() not in {result[2] for result in results}


def test_an_error_of_ours_reaches_the_caller_as_it_was_raised(ray_cluster: None) -> None:
    with pytest.raises(NonFiniteRowError, match="row 7"):
        list(actor_mapper(RayConfig())(refuse, [0, 1, 2], "embedding"))


def test_a_foreign_error_keeps_its_class_and_its_traceback(ray_cluster: None) -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        list(actor_mapper(RayConfig())(divide, [1, 0], "dividing"))
    assert "return 1 / item" in caught.value.__notes__[0]


def test_a_result_of_any_type_arrives_as_it_was_returned(ray_cluster: None) -> None:
    assert list(actor_mapper(RayConfig())(twice, [3], "doubling")) == [(3, 3)]


def test_an_item_that_kills_its_actor_is_not_retried_for_ever(ray_cluster: None) -> None:
    with pytest.raises(WorkerLostError, match="dying: an item's worker was lost 2 times"):
        list(actor_mapper(RayConfig(task_retries=1))(die, [1], "dying"))


def test_actors_without_a_gpu_see_none_and_hold_all_cpus_without_waiting_for_one(ray_cluster: None) -> None:
    cpus = int(ray.cluster_resources()["CPU"])
    mapper = actor_mapper(RayConfig(use_gpu=True, cpus_per_task=cpus))
    assert list(mapper(sees_no_gpus, [0, 1], "looking")) == [True, True]


def test_a_pool_fills_the_cluster_and_may_grow_but_never_beyond_the_items() -> None:
    bounds = {"n_items": 1000, "n_slots": 112}
    assert pool_bounds(RayConfig(), **bounds) == (1, 112, 112)
    assert pool_bounds(RayConfig(), n_items=1000, n_slots=0) == (1, ACTORS_TO_GROW, 1)
    assert pool_bounds(RayConfig(), n_items=5, n_slots=112) == (1, 5, 5)
    assert pool_bounds(RayConfig(actors=ActorCount(min=2, max=8)), **bounds) == (2, 8, 8)
    assert pool_bounds(RayConfig(actors=ActorCount(min=4)), n_items=3, n_slots=2) == (3, 3, 3)


def test_no_items_need_no_actor() -> None:
    assert list(actor_mapper(RayConfig())(refuse, [], "embedding")) == []

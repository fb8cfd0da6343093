"""Items over a pool of Ray Data actors: each result once, errors as they were raised."""

from __future__ import annotations

import os

import pytest

from distspectral.config.ray import ActorCount, RayConfig
from distspectral.errors import NonFiniteRowError
from distspectral.orchestration.actors import actor_mapper

pytestmark = pytest.mark.ray


def process_of(item: tuple[str, int]) -> tuple[str, int, int]:
    return (*item, os.getpid())


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


def test_no_items_need_no_actor() -> None:
    assert list(actor_mapper(RayConfig())(refuse, [], "embedding")) == []

from __future__ import annotations

import logging
import platform
from collections.abc import Iterator
from typing import Any

import pytest

from distspectral.config import load_config
from distspectral.mapping import Mapper, local_map
from distspectral.orchestration import stragglers
from distspectral.orchestration.engine import LocalEngine
from distspectral.orchestration.observer import SilentObserver
from distspectral.orchestration.pipeline import Pipeline
from distspectral.orchestration.stragglers import Timed, Timing
from distspectral.stages.stage import Stage
from distspectral.storage.source.dataset import Source
from tests.runs import write_run


def timings(*seconds: float) -> list[Timing]:
    return [Timing(f"part-{index}", "here", one, one) for index, one in enumerate(seconds)]


def test_an_item_far_above_the_median_is_late_and_the_longest_comes_first() -> None:
    late = stragglers.stragglers(timings(3, 29, 3, 3, 3, 80, 31))
    assert [one.item for one in late] == ["part-5", "part-6"]


def test_nobody_is_late_among_few_or_where_all_is_quick() -> None:
    assert stragglers.stragglers(timings(1, 1, 90)) == []
    assert stragglers.stragglers(timings(0.1, 0.1, 0.1, 0.1, 9)) == []


def test_a_result_comes_with_the_items_name_its_machine_and_its_time() -> None:
    timing, result = Timed(lambda item: item[1] + 1)(("part-7", 41))
    assert result == 42
    assert (timing.item, timing.host) == ("part-7", platform.node())
    assert timing.seconds > 0


class SlowEngine(LocalEngine):
    """Says of two items that they took far longer than the others, all of them on another machine."""

    def mapper(self, stage: Stage) -> Mapper:
        def mapped(function: Any, items: Any, description: str, *, on_gpu: bool = False) -> Iterator[Any]:
            for timing, result in local_map(function, items, description):
                is_late = timing.item in ("part-00003.arrow", "part-00007.arrow")
                yield Timing(timing.item, "there", 90.0 if is_late else 3.0, 1.0), result

        return mapped


def test_a_stage_names_its_stragglers(tmp_path, caplog) -> None:
    config = load_config(write_run(tmp_path, sizes=(10,) * 12))
    pipeline = Pipeline(config, Source.open(config.data), SlowEngine(), SilentObserver())
    with caplog.at_level(logging.WARNING, stragglers.__name__):
        pipeline.stage("pack")
    [message] = caplog.messages
    assert message.startswith("packing: 2 of 12 items took at least 5 times the median of 3.0 s: ")
    assert ": part-00003.arrow 90 s on there, part-00007.arrow 90 s on there; look for" in message


@pytest.mark.parametrize("n_late", [1, 5])
def test_a_few_are_listed(n_late: int, caplog) -> None:
    stragglers.report(timings(*[1.0] * 9, *[60.0] * n_late), "embedding")
    [message] = caplog.messages
    assert message.count(" 60 s on here") == min(n_late, 3)
    assert (", ...;" in message) == (n_late > 3)

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from distspectral.mapping import in_order, local_map
from distspectral.orchestration.stragglers import Timed


def squared(item: tuple[str, int]) -> int:
    return item[1] ** 2


class Shuffling:
    """Ends items in an order of its own, each as if in another process, and hears of each what a run does."""

    def __init__(self, order: Sequence[int]) -> None:
        self.order, self.ended, self.names = order, 0, list[str]()

    def __call__(
        self, function: Callable[[Any], Any], items: Sequence[Any], description: str, *, on_gpu: bool = False
    ) -> Iterator[Any]:
        assert (description, on_gpu) == ("squaring", True)
        for index in self.order:
            timing, result = pickle.loads(pickle.dumps(Timed(function)))(pickle.loads(pickle.dumps(items[index])))
            self.ended += 1
            self.names.append(timing.item)
            yield result


def test_results_come_in_the_order_of_the_items_as_soon_as_all_before_them_are_there() -> None:
    mapper = Shuffling([1, 2, 0, 4, 3])
    found = in_order(mapper, squared, [(f"part-{number}", number) for number in range(5)], "squaring", on_gpu=True)
    assert [(result, mapper.ended) for result in found] == [(0, 3), (1, 3), (4, 3), (9, 5), (16, 5)]
    assert mapper.names == ["part-1", "part-2", "part-0", "part-4", "part-3"]


def test_an_item_is_told_of_by_its_name_or_first_row_and_else_by_its_number() -> None:
    mapper = Shuffling([0, 1, 2])
    assert list(in_order(mapper, len, [(40, 50), np.arange(3), (np.arange(2),)], "squaring", on_gpu=True)) == [2, 3, 1]
    assert mapper.names == ["40", "1", "2"]


def test_no_items_have_no_results() -> None:
    assert list(in_order(local_map, len, [], "counting")) == []

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest

from distspectral.serving.batching import Batcher, Rows
from distspectral.serving.service import Answer

NEVER_S = 60.0


class Doubling:
    """Answers twice the rows, and notes how many rows of each request came together."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []

    def __call__(self, requests: Sequence[Rows]) -> list[Answer]:
        self.batches.append([len(rows) for rows in requests])
        return [{"embedding": 2 * rows} for rows in requests]


def request(n_rows: int) -> Rows:
    return np.full((n_rows, 2), n_rows, np.float32)


async def ask(batcher: Batcher, sizes: Sequence[int]) -> list[Answer]:
    return await asyncio.gather(*[batcher.answer(request(size)) for size in sizes])


@pytest.mark.parametrize(
    ("sizes", "wait_s", "batches"),
    [
        ([1, 2, 3], 0.01, [[1, 2, 3]]),
        ([4, 4], NEVER_S, [[4, 4]]),
        ([5, 5, 3], 0.01, [[5], [5], [3]]),
        ([8, 1], 0.01, [[8], [1]]),
        ([9], NEVER_S, [[9]]),
    ],
)
def test_requests_come_together_up_to_a_batch(sizes: list[int], wait_s: float, batches: list[list[int]]) -> None:
    answers = Doubling()
    found = asyncio.run(asyncio.wait_for(ask(Batcher(answers, 8, wait_s), sizes), 10))
    for size, answer in zip(sizes, found, strict=True):
        np.testing.assert_array_equal(answer["embedding"], 2 * request(size))
    assert answers.batches == batches


def test_an_error_reaches_all_that_waited_and_none_after_them() -> None:
    failing = [True]

    def answers(requests: Sequence[Rows]) -> list[Answer]:
        if failing:
            raise ZeroDivisionError
        return [{} for _ in requests]

    async def scenario() -> None:
        batcher = Batcher(answers, 8, 0.01)
        found = await asyncio.gather(*[batcher.answer(request(1)) for _ in range(3)], return_exceptions=True)
        assert [type(one) for one in found] == [ZeroDivisionError] * 3
        failing.clear()
        assert await batcher.answer(request(1)) == {}

    asyncio.run(scenario())


def test_a_client_that_left_does_not_cost_the_others_their_answer() -> None:
    async def scenario() -> None:
        batcher = Batcher(answers := Doubling(), 8, 0.05)
        gone = asyncio.create_task(batcher.answer(request(1)))
        stays = asyncio.create_task(batcher.answer(request(2)))
        await asyncio.sleep(0)
        gone.cancel()
        found = await asyncio.wait_for(stays, 10)
        np.testing.assert_array_equal(found["embedding"], 2 * request(2))
        assert answers.batches == [[2]]

    asyncio.run(scenario())

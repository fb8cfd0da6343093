"""Reading, computing and writing overlap, keep the rows' order, and end together where one of them fails."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from distspectral.embedding import forward
from distspectral.embedding.stream import Clock, stream
from distspectral.storage.rows.block import Block

N_BLOCKS = 12
MEETING_S = 60
"""After which whoever waits for the others is told that they do not come."""
CPU = torch.device("cpu")


def blocks(pause_s: float = 0.0) -> Iterator[Block]:
    for number in range(N_BLOCKS):
        time.sleep(pause_s)
        yield Block(np.full((2, 3), number, np.float32), None, None, 2 * number)


def doubled(x: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"outputs": 2 * x}


def test_blocks_are_put_away_in_order_with_their_results() -> None:
    found: list[tuple[int, float]] = []
    stream(blocks(), doubled, lambda block, made: found.append((block.first_row, made["outputs"][0, 0])), CPU, Clock())
    assert found == [(2 * number, 2.0 * number) for number in range(N_BLOCKS)]


def test_what_comes_of_the_parts_of_a_block_is_put_away_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forward, "CPU_ROWS", 2)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    passed, found = [], []

    def compute(x: torch.Tensor) -> dict[str, torch.Tensor]:
        passed.append(len(x))
        return doubled(x)

    block = Block(np.arange(15, dtype=np.float32).reshape(5, 3), None, None, 0)
    stream(iter([block]), compute, lambda _, made: found.append(made["outputs"]), CPU, Clock())
    assert passed == [2, 2, 1]
    np.testing.assert_array_equal(found, [2 * block.vectors])


def test_the_three_of_them_work_at_once() -> None:
    """Each waits until the others are inside, too: two that took turns would wait for ever."""
    meeting = threading.Barrier(3, timeout=MEETING_S)
    writers = set()

    def read() -> Iterator[Block]:
        for number, block in enumerate(blocks()):
            if number >= 2:
                meeting.wait()
            yield block

    def compute(x: torch.Tensor) -> dict[str, torch.Tensor]:
        if 1 <= x[0, 0] < N_BLOCKS - 1:
            meeting.wait()
        return doubled(x)

    def put(block: Block, made: dict[str, NDArray[Any]]) -> None:
        writers.add(threading.current_thread())
        if block.first_row < 2 * (N_BLOCKS - 2):
            meeting.wait()

    stream(read(), compute, put, CPU, Clock())
    assert len(writers) == 1
    assert threading.current_thread() not in writers


def test_the_clock_is_told_what_each_of_them_takes() -> None:
    pause_s = 0.002

    def compute(x: torch.Tensor) -> dict[str, torch.Tensor]:
        time.sleep(2 * pause_s)
        return doubled(x)

    clock = Clock()
    stream(blocks(pause_s), compute, lambda block, made: time.sleep(3 * pause_s), CPU, clock)
    least = {"read": N_BLOCKS * pause_s, "compute": 2 * N_BLOCKS * pause_s, "write": 3 * N_BLOCKS * pause_s}
    assert all(clock.seconds[kind] >= seconds for kind, seconds in least.items()), "a busy machine takes longer"


@pytest.mark.parametrize("kind", ["read", "compute", "write"])
def test_what_one_of_them_meets_ends_all(kind: str) -> None:
    def fails_at(number: float, of: str) -> None:
        if of == kind and number == 5:
            raise RuntimeError(kind)

    def read() -> Iterator[Block]:
        for block in blocks():
            fails_at(block.first_row / 2, "read")
            yield block

    def compute(x: torch.Tensor) -> dict[str, torch.Tensor]:
        fails_at(float(x[0, 0]), "compute")
        return doubled(x)

    written: list[int] = []

    def put(block: Block, made: dict[str, NDArray[Any]]) -> None:
        fails_at(block.first_row / 2, "write")
        written.append(block.first_row // 2)

    with pytest.raises(RuntimeError, match=kind):
        stream(read(), compute, put, CPU, Clock())
    assert written[:5] == list(range(5))
    assert 5 not in written

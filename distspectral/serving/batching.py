"""Requests that come together pass the network together.

Shape letters: B rows, D features.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from distspectral.serving.service import Answer

Rows = NDArray[np.float32]


class Batcher:
    """Collects the rows of requests on one event loop.

    Args:
        answers: the outputs of each of several requests, :meth:`Service.answers`.
        max_rows: of a batch at most, all requests together; a request of more is a batch of its own.
        wait_s: seconds that a request waits for others, unless there are enough before.
    """

    def __init__(self, answers: Callable[[Sequence[Rows]], list[Answer]], max_rows: int, wait_s: float) -> None:
        self.answers, self.max_rows, self.wait_s = answers, max_rows, wait_s
        self.waiting: deque[tuple[Rows, asyncio.Future[Answer]]] = deque()
        self.due: asyncio.TimerHandle | None = None

    async def answer(self, rows: Rows) -> Answer:
        """Return the outputs of one request's rows (B, D)."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()
        self.waiting.append((rows, future))
        if sum(len(others) for others, _ in self.waiting) >= self.max_rows:
            self.flush()
        elif self.due is None:
            self.due = loop.call_later(self.wait_s, self.flush)
        return await future

    def flush(self) -> None:
        """Answer the requests that wait, batch by batch."""
        if self.due is not None:
            self.due.cancel()
            self.due = None
        while self.waiting:
            batch = [self.waiting.popleft()]
            n_rows = len(batch[0][0])
            while self.waiting and n_rows + len(self.waiting[0][0]) <= self.max_rows:
                batch.append(self.waiting.popleft())
                n_rows += len(batch[-1][0])
            self.work(batch)

    def work(self, batch: Sequence[tuple[Rows, asyncio.Future[Answer]]]) -> None:
        """Answer one batch, but for those that nobody waits for any more."""
        wanted = [(rows, future) for rows, future in batch if not future.done()]
        if not wanted:
            return
        try:
            answers = self.answers([rows for rows, _ in wanted])
        except Exception as error:
            for _, future in wanted:
                future.set_exception(error)
        else:
            for (_, future), answer in zip(wanted, answers, strict=True):
                future.set_result(answer)

"""Blocks of rows through a network: a thread reads ahead, this one computes, a third writes, a few blocks between them.

Shape letters: B rows of a block, D features.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import torch
from numpy.typing import NDArray
from torch import Tensor

from distspectral.embedding.forward import parts
from distspectral.embedding.transfer import Transfer
from distspectral.storage.artifact.manifest import Shard
from distspectral.storage.rows.block import Block

IN_FLIGHT = 2
"""Blocks read ahead, and blocks computed but not yet written."""

T = TypeVar("T")


class Clock:
    """Seconds that each kind of work took, waiting for another kind not counted."""

    def __init__(self) -> None:
        self.seconds = {"read": 0.0, "compute": 0.0, "write": 0.0}
        self._lock = threading.Lock()

    def timed(self, kind: str, function: Callable[..., T], *arguments: Any) -> T:
        """Call the function and add what it took."""
        began = time.perf_counter()
        try:
            return function(*arguments)
        finally:
            spent = time.perf_counter() - began
            with self._lock:
                self.seconds[kind] += spent


def busy_seconds(shards: Sequence[Shard]) -> dict[str, float]:
    """Return what all shards took by kind of work, by their receipts' ``seconds``."""
    return {kind: sum(shard.details["seconds"][kind] for shard in shards) for kind in Clock().seconds}


def held_bytes(rows: int, dim: int, widest: int) -> int:
    """Return what a stream of blocks of so many rows holds of them and of the activations, at most, about.

    Args:
        rows: B.
        dim: D.
        widest: units of the network's widest layer.
    """
    return 4 * rows * (2 * IN_FLIGHT * dim + 2 * widest)


@torch.inference_mode()
def stream(
    blocks: Iterator[Block],
    compute: Callable[[Tensor], Mapping[str, Tensor]],
    put: Callable[[Block, dict[str, NDArray[Any]]], None],
    device: torch.device,
    clock: Clock,
) -> None:
    """Compute something of every block and have it put away in order; at most 2 x ``IN_FLIGHT`` blocks are held.

    Args:
        blocks: read by a thread of their own; vectors (B, D) that need not be writable.
        compute: of some of a block's vectors on the device, what is to be put away.
        put: called with a block and its results, in a third thread.
        device: where ``compute`` works.
        clock: told what reading, computing and writing take.

    Raises what any of the three does, once those before it are done.
    """
    transfer = Transfer(device)

    def begin(block: Block) -> Callable[[], dict[str, NDArray[Any]]]:
        made = [compute(part) for part in parts(transfer.send(block.vectors))]
        whole = made[0] if len(made) == 1 else {name: torch.cat([one[name] for one in made]) for name in made[0]}
        return transfer.fetch(whole)

    def finish(block: Block, results: Callable[[], dict[str, NDArray[Any]]]) -> None:
        made = clock.timed("compute", results)  # what a GPU has not done yet
        clock.timed("write", put, block, made)

    with ThreadPoolExecutor(1, "read") as reading, ThreadPoolExecutor(1, "write") as writing:
        unwritten: deque[Future[None]] = deque()
        for block in _ahead(blocks, reading, clock):
            results = clock.timed("compute", begin, block)
            unwritten.append(writing.submit(finish, block, results))
            if len(unwritten) > IN_FLIGHT:
                unwritten.popleft().result()
        for one in unwritten:
            one.result()


def _ahead(blocks: Iterator[Block], reading: ThreadPoolExecutor, clock: Clock) -> Iterator[Block]:
    """Yield the blocks, read by the pool's thread while the caller is busy with those before."""

    def submit() -> Future[Block | None]:
        return reading.submit(clock.timed, "read", next, blocks, None)

    upcoming = deque(submit() for _ in range(IN_FLIGHT))
    while (block := upcoming.popleft().result()) is not None:
        upcoming.append(submit())
        yield block

"""Batches to the device and results back, so that a GPU computes one while the next is on its way.

A CPU takes the arrays as they are. For a GPU they pass through two page-locked buffers in turn, from which copies run
beside the kernels; results come back the same way, and only whoever reads them waits.

Shape letters: B rows, D features.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.dlpack import from_dlpack

N_BUFFERS = 2


def as_tensor(vectors: NDArray[np.float32]) -> Tensor:
    """Return a (B, D) array as a tensor of the same memory; it may be read-only, and then must not be written to."""
    flat: Tensor = from_dlpack(pa.array(vectors.reshape(-1)))  # torch.from_numpy warns of read-only ones
    return flat.view(vectors.shape)


def _pinned(rows: int, dim: int) -> Tensor:
    return torch.empty(rows, dim, pin_memory=True)


class Transfer:
    """The way to one device and back.

    Args:
        device: where to.
        buffer: makes a (rows, D) float32 tensor that copies can start from at once.
        event: makes something with ``record()`` and ``synchronize()`` like ``torch.cuda.Event``.
    """

    def __init__(
        self,
        device: torch.device,
        buffer: Callable[[int, int], Tensor] = _pinned,
        event: Callable[[], Any] | None = None,
    ) -> None:
        self.device, self._buffer, self._event = device, buffer, event or torch.cuda.Event
        self._lanes: list[tuple[Tensor, Any]] = []
        self._turn = -1

    def send(self, vectors: NDArray[np.float32]) -> Tensor:
        """Return a batch (B, D) on the device, perhaps still on its way in the current stream."""
        if self.device.type == "cpu":
            return as_tensor(vectors)
        staged, copied = self._lane(*vectors.shape)
        copied.synchronize()  # the copy before the last has left this buffer
        staged = staged[: len(vectors)]
        staged.copy_(as_tensor(vectors))
        moved = staged.to(self.device, non_blocking=True)
        copied.record()
        return moved

    def _lane(self, rows: int, dim: int) -> tuple[Tensor, Any]:
        """Return the buffer whose turn it is, made or grown to ``rows``, and the event of its last copy."""
        if len(self._lanes) < N_BUFFERS:
            self._lanes.append((self._buffer(rows, dim), self._event()))
            return self._lanes[-1]
        index = self._turn = (self._turn + 1) % N_BUFFERS
        if len(self._lanes[index][0]) < rows:
            self._lanes[index][1].synchronize()
            self._lanes[index] = (self._buffer(rows, dim), self._event())
        return self._lanes[index]

    def fetch(self, made: Mapping[str, Tensor]) -> Callable[[], dict[str, NDArray[Any]]]:
        """Begin to bring results back; return what waits for them and hands them out, in any thread."""
        if self.device.type == "cpu":
            return lambda: {name: tensor.numpy() for name, tensor in made.items()}
        there = {name: tensor.to("cpu", non_blocking=True) for name, tensor in made.items()}  # into pinned memory
        arrived = self._event()
        arrived.record()

        def wait() -> dict[str, NDArray[Any]]:
            arrived.synchronize()
            return {name: tensor.numpy() for name, tensor in there.items()}

        return wait

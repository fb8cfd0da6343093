"""Batches to the device and results back, so that a GPU computes one while the next is on its way.

A CPU takes the arrays as they are. For a GPU they pass through two page-locked buffers in turn. Copies there and back
have a CUDA stream each, beside the one that computes: within one stream a copy would wait for the kernels before it.
Only whoever reads results waits for them.

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

from distspectral.storage.rows.joined import sparse_rows
from distspectral.storage.rows.vectors import Vectors

N_BUFFERS = 2


def as_tensor(vectors: NDArray[np.float32]) -> Tensor:
    """Return a (B, D) array as a tensor of the same memory; it may be read-only, and then must not be written to."""
    flat: Tensor = from_dlpack(pa.array(vectors.reshape(-1)))  # torch.from_numpy warns of read-only ones
    return flat.view(vectors.shape)


def sparse_tensor(vectors: Vectors, rows: NDArray[np.int64]) -> Tensor | None:
    """Return rows (B, D) float32 by number as a COO tensor where they are thinly filled; None where they are not."""
    thin = sparse_rows(vectors, rows)
    if thin is None:
        return None
    entries = thin.tocoo()
    places = torch.from_numpy(np.stack([entries.row, entries.col]).astype(np.int64))
    values = torch.from_numpy(entries.data)
    return torch.sparse_coo_tensor(places, values, thin.shape, is_coalesced=True, check_invariants=False)


def gathered(vectors: Vectors, rows: NDArray[np.int64]) -> Tensor:
    """Return rows (B, D) float32 by number, as a perceptron multiplies them fastest: see :func:`sparse_tensor`."""
    thin = sparse_tensor(vectors, rows)
    return torch.from_numpy(vectors.gather(rows)) if thin is None else thin


def _pinned(rows: int, dim: int) -> Tensor:
    return torch.empty(rows, dim, pin_memory=True)


class Transfer:
    """The way to one device and back; sent and fetched by one thread, whose current stream computes.

    Args:
        device: where to.
        buffer: makes a (rows, D) float32 tensor that copies can start from at once.
        cuda: streams and events as ``torch.cuda`` has them.
    """

    def __init__(
        self, device: torch.device, buffer: Callable[[int, int], Tensor] = _pinned, cuda: Any = torch.cuda
    ) -> None:
        self.device, self._buffer, self._cuda = device, buffer, cuda
        self._lanes: list[tuple[Tensor, Any]] = []
        self._turn = -1
        if device.type != "cpu":
            self._there, self._back = cuda.Stream(device), cuda.Stream(device)

    def _event(self) -> Any:
        return self._cuda.Event(blocking=True)  # whoever waits sleeps: the core is for decoding

    def send(self, vectors: NDArray[np.float32]) -> Tensor:
        """Return a batch (B, D) on the device, for the current stream, which waits for it to arrive."""
        if self.device.type == "cpu":
            return as_tensor(vectors)
        staged, copied = self._lane(*vectors.shape)
        copied.synchronize()  # the copy before the last has left this buffer
        staged = staged[: len(vectors)]
        staged.copy_(as_tensor(vectors))
        with self._cuda.stream(self._there):
            moved = staged.to(self.device, non_blocking=True)
            copied.record()
        computing = self._cuda.current_stream(self.device)
        computing.wait_event(copied)
        moved.record_stream(computing)  # its memory is the other stream's, to be used again only after the kernels
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
        computed, arrived = self._event(), self._event()
        computed.record()
        self._back.wait_event(computed)
        with self._cuda.stream(self._back):
            # into page-locked memory, which torch allots where a copy from a GPU is not to be waited for
            there = {name: tensor.to("cpu", non_blocking=True) for name, tensor in made.items()}
            arrived.record()
        for tensor in made.values():
            tensor.record_stream(self._back)

        def wait() -> dict[str, NDArray[Any]]:
            arrived.synchronize()
            return {name: tensor.numpy() for name, tensor in there.items()}

        return wait

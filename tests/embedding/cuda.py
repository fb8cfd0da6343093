"""A CUDA of our own: streams that run when a test says, memory that is used again, page-locked copies in flight.

It does what ``Transfer`` relies on. An event waits for what its stream had been given when it was recorded, one never
recorded for nothing (CUDA Runtime API, Event Management). A copy between page-locked memory and the device takes place
when its stream gets to it, and reads its source then (``cudaMemcpyAsync``; PyTorch tutorial on ``non_blocking``).
Device memory is its stream's: once a tensor is gone, the next one of that stream may have it at once, without regard
to other streams unless ``record_stream`` named them (PyTorch notes on CUDA, "CUDA streams"). A copy to the host that is
not waited for goes into page-locked memory of its own.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch


class Mark:
    """A point in a stream's work."""

    def __init__(self, stream: Stream) -> None:
        self.stream, self.is_reached = stream, False


class Stream:
    """Work that is done in order; ahead of time where its name is among the eager ones."""

    def __init__(self, cuda: Cuda, name: str) -> None:
        self.cuda, self.name = cuda, name
        self._work: deque[tuple[Mark | None, Callable[[], None]]] = deque()
        self.free: list[np.ndarray[Any, Any]] = []
        self.busy: list[tuple[np.ndarray[Any, Any], list[Mark]]] = []

    def add(self, work: Callable[[], None], after: Mark | None = None) -> None:
        self._work.append((after, work))
        self.cuda.run_eager()

    def mark(self) -> Mark:
        mark = Mark(self)
        self.add(lambda: setattr(mark, "is_reached", True))
        return mark

    def wait_event(self, event: Event) -> None:
        self.add(lambda: None, event.mark)

    def step(self) -> bool:
        """Do the next thing; return whether there was one that could be done."""
        if not self._work or (self._work[0][0] is not None and not self._work[0][0].is_reached):
            return False
        self._work.popleft()[1]()
        return True

    def reach(self, mark: Mark) -> None:
        while not mark.is_reached:
            if not self.step():
                after = self._work[0][0]
                assert after is not None
                after.stream.reach(after)

    def allot(self, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
        self.free += [array for array, marks in self.busy if all(mark.is_reached for mark in marks)]
        self.busy = [one for one in self.busy if not all(mark.is_reached for mark in one[1])]
        for index, array in enumerate(self.free):
            if array.shape == shape:
                return self.free.pop(index)
        return np.full(shape, np.nan, np.float32)


class Event:
    def __init__(self, cuda: Cuda) -> None:
        self.cuda = cuda
        self.mark: Mark | None = None

    def record(self) -> None:
        self.mark = self.cuda.current.mark()

    def synchronize(self) -> None:
        if self.mark is not None:
            self.mark.stream.reach(self.mark)


class HostTensor:
    """Page-locked."""

    def __init__(self, cuda: Cuda, array: np.ndarray[Any, Any]) -> None:
        self.cuda, self.array = cuda, array

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, rows: slice) -> HostTensor:
        return HostTensor(self.cuda, self.array[rows])

    def copy_(self, source: torch.Tensor) -> None:
        self.array[...] = source.numpy()

    def to(self, device: torch.device, *, non_blocking: bool) -> DeviceTensor:
        assert device.type == "cuda"
        assert non_blocking
        return self.cuda.launch(lambda array: array, self)

    def numpy(self) -> np.ndarray[Any, Any]:
        return self.array


class DeviceTensor:
    def __init__(self, cuda: Cuda, array: np.ndarray[Any, Any]) -> None:
        self.cuda, self.array, self.home = cuda, array, cuda.current
        self._users: list[Stream] = []

    def record_stream(self, stream: Stream) -> None:
        self._users.append(stream)

    def __del__(self) -> None:
        self.home.busy.append((self.array, [stream.mark() for stream in self._users]))

    def to(self, device: str, *, non_blocking: bool) -> HostTensor:
        assert device == "cpu"
        assert non_blocking
        source, target = self.array, np.full(self.array.shape, np.nan, np.float32)
        self.cuda.current.add(lambda: np.copyto(target, source))
        return HostTensor(self.cuda, target)


class Cuda:
    """What ``torch.cuda`` is to ``Transfer``.

    Args:
        eager: streams that never wait for anybody to wait for them: computing, there, back.
    """

    def __init__(self, eager: Sequence[str] = ()) -> None:
        self.eager = eager
        self.current = Stream(self, "computing")
        self.streams = [self.current]
        self.n_kernels = 0

    def run_eager(self) -> None:
        while any(stream.name in self.eager and stream.step() for stream in self.streams):
            pass

    def Stream(self, device: torch.device) -> Stream:
        self.streams.append(Stream(self, ("there", "back")[len(self.streams) - 1]))
        return self.streams[-1]

    def Event(self, *, blocking: bool) -> Event:
        return Event(self)

    def current_stream(self, device: torch.device) -> Stream:
        return self.current

    @contextlib.contextmanager
    def stream(self, stream: Stream) -> Iterator[None]:
        before, self.current = self.current, stream
        yield
        self.current = before

    def buffer(self, rows: int, dim: int) -> HostTensor:
        return HostTensor(self, np.full((rows, dim), np.nan, np.float32))

    def launch(
        self, function: Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]], source: HostTensor | DeviceTensor
    ) -> DeviceTensor:
        """Have the current stream fill a new tensor from another one; only their memory is held until then."""
        taken, given = source.array, self.current.allot(source.array.shape)
        self.current.add(lambda: np.copyto(given, function(taken)))
        return DeviceTensor(self, given)

    def doubled(self, source: DeviceTensor) -> DeviceTensor:
        """Launch a kernel."""

        def kernel(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
            self.n_kernels += 1
            return 2 * array

        return self.launch(kernel, source)

"""A trained network that a process loads once, however many shards it takes."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Generic, TypeVar

import torch
from torch import nn

M = TypeVar("M", bound=nn.Module)


@dataclasses.dataclass(frozen=True)
class Loader(Generic[M]):
    """How to get a network, and what tells it from others. Picklable where ``load`` is.

    Attributes:
        identity: equal for equal networks: names and fingerprints of what they are read from.
        load: reads the network onto the CPU.
    """

    identity: tuple[str, ...]
    load: Callable[[], M] = dataclasses.field(compare=False)

    def on(self, device: torch.device) -> M:
        """Return the network on a device, ready to evaluate: the one that this process loaded last, if it is that."""
        found: M = _loaded(self, device)
        return found


@functools.lru_cache(maxsize=1)
def _loaded(loader: Loader[M], device: torch.device) -> M:
    return loader.load().eval().to(device)

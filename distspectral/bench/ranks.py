"""Ranks of a training as processes of this machine, without Ray."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import spawn

T = TypeVar("T")

BACKENDS = "cpu:gloo,cuda:gloo"
"""NCCL wants a card for each rank."""


def on_ranks(n_ranks: int, n_threads: int, function: Callable[..., T], *args: Any) -> T:
    """Call ``function(*args)``, of module level, on every rank of a group and return what the first one returns.

    Args:
        n_ranks: processes.
        n_threads: torch's, of each.
        function: its result is saved by torch.
        args: of the function.
    """
    with tempfile.TemporaryDirectory() as folder:
        spawn(_rank, (n_ranks, n_threads, folder, function, args), nprocs=n_ranks)  # type: ignore[no-untyped-call]
        result: T = torch.load(Path(folder, "result"), weights_only=True)
        return result


def _rank(
    rank: int, n_ranks: int, n_threads: int, folder: str, function: Callable[..., Any], args: tuple[Any, ...]
) -> None:
    torch.set_num_threads(n_threads)
    dist.init_process_group(BACKENDS, init_method=f"file://{folder}/rendezvous", rank=rank, world_size=n_ranks)
    result = function(*args)
    if rank == 0:
        torch.save(result, Path(folder, "result"))
    dist.barrier()
    dist.destroy_process_group()

"""Sums of small matrices over ranks: one function for one process and for many.

Without an initialised process group every function is the identity, so the same code trains in one process. A tensor
is summed where it lies, so a group of ranks on GPUs needs a backend for either kind of memory (:data:`GPU_BACKENDS`):
samplers and errors speak of numbers of the host, steps and checks of those of the device.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
import torch.distributed as dist
from torch import Tensor

from distspectral.errors import OtherRankFailedError, RanksDivergedError

CPU_BACKEND = "gloo"
GPU_BACKENDS = "cpu:gloo,cuda:nccl"
"""By the device of the tensor; a group of NCCL alone refuses tensors of the host."""


def world_size() -> int:
    """Return the number of ranks, 1 without a process group."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Return this process's rank, 0 without a process group."""
    return dist.get_rank() if dist.is_initialized() else 0


def all_reduce_sum(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return each tensor summed over ranks, by one all-reduce of their concatenation.

    Args:
        tensors: float64 tensors of the same names and shapes on every rank, all on one device; detached here.

    Returns:
        New tensors, bit-identical on all ranks.

    Communication: one all-reduce of all elements together. Gradient: none.
    """
    flat = torch.cat([tensor.detach().reshape(-1) for tensor in tensors.values()])
    if world_size() > 1:
        dist.all_reduce(flat)
    parts = torch.split(flat, [tensor.numel() for tensor in tensors.values()])
    return {name: part.view(tensor.shape) for (name, tensor), part in zip(tensors.items(), parts, strict=True)}


@contextlib.contextmanager
def raise_on_all_ranks() -> Iterator[None]:
    """Raise on every rank after a block that raised on one: for what a rank does alone, such as writing a file.

    Without it the others would wait for that rank in their next collective until it times out.

    Raises:
        OtherRankFailedError: where the block itself went well; elsewhere its own error.

    Communication: one all-reduce of one number of the host.
    """
    error: Exception | None = None
    try:
        yield
    except Exception as raised:
        error = raised
    if world_size() > 1:
        failed = torch.tensor([float(error is not None)])
        dist.all_reduce(failed)
        if failed.item() and error is None:
            raise OtherRankFailedError("another rank could not go on; its own error says why")
    if error is not None:
        raise error


def check_identical(tensor: Tensor, name: str) -> None:
    """Raise on every rank unless ``tensor`` is bit for bit the same on all of them.

    Args:
        tensor: any float64 tensor of the same shape everywhere.
        name: what it is, for the message.

    Raises:
        RanksDivergedError: names the ranks that differ from rank 0.

    Communication: one all-gather of one integer per rank.
    """
    if world_size() == 1:
        return
    checksum = _checksum(tensor)
    everyone = [torch.zeros_like(checksum) for _ in range(world_size())]
    dist.all_gather(everyone, checksum)
    if different := [r for r, other in enumerate(everyone) if not torch.equal(other, everyone[0])]:
        raise RanksDivergedError(
            f"{name} on ranks {different} differs from rank 0's although all ranks add the same all-reduced sums; "
            f"check for mixed library versions or failing memory on those nodes, then resume from the last checkpoint"
        )


def _checksum(tensor: Tensor) -> Tensor:
    """Return a position-dependent 64-bit sum (wrapping) of the tensor's bit patterns."""
    bits = tensor.detach().double().contiguous().view(torch.int64).reshape(-1)
    odd = 2 * torch.arange(len(bits), device=bits.device) + 1
    return (bits * odd).sum().reshape(1)

"""Torch as it comes, for whatever trains or embeds in a process that belongs to someone else."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def plain_torch() -> Iterator[None]:
    """Work with torch as it comes, whatever its caller works with; also a decorator.

    Training needs gradients and tensors that record them, networks are float32, and the device is said with each: a
    caller may have all of it otherwise, by ``no_grad``, ``inference_mode``, ``set_default_dtype`` or
    ``set_default_device``.
    """
    dtype, device = torch.get_default_dtype(), torch.get_default_device()
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        if device.type != "cpu":  # entering costs each of torch's calls a little
            stack.enter_context(torch.device("cpu"))
        if dtype != torch.float32:  # that of all threads
            stack.callback(torch.set_default_dtype, dtype)
            torch.set_default_dtype(torch.float32)
        yield

"""In which numbers a network multiplies while it learns: bfloat16 where the hardware does that faster, else float32.

Weights, the optimiser's moments and all sums stay float32 or wider: only the factors of matrix products are rounded.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor, nn

TrainPrecision = Literal["auto", "float32", "bfloat16"]

SIDE, ROUNDS = 512, 5
"""Of the square matrices whose product is timed, and how often; both ways take a few milliseconds."""


@functools.cache
def _fast_on_cpu() -> bool:
    """Whether this machine's CPU multiplies bfloat16 faster: what torch reports of it, then timed.

    A CPU without such instructions takes thirty times longer than in float32, and need not be timed.
    """
    if not torch.backends.mkldnn.is_available() or not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False

    def seconds(dtype: torch.dtype) -> float:
        matrix = torch.ones(SIDE, SIDE, dtype=dtype)
        taken = []
        for _ in range(ROUNDS):
            began = time.perf_counter()
            matrix @ matrix
            taken.append(time.perf_counter() - began)
        return min(taken)

    return seconds(torch.bfloat16) < seconds(torch.float32)


def fast_bfloat16(device: torch.device) -> bool:
    """Return whether ``device`` multiplies matrices faster in bfloat16 than in float32; found out once per process."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)  # those before only imitate it
    return device.type == "cpu" and _fast_on_cpu()


def resolved(precision: TrainPrecision, device: torch.device) -> Literal["float32", "bfloat16"]:
    """Return what ``auto`` means on ``device``."""
    if precision == "auto":
        return "bfloat16" if fast_bfloat16(device) else "float32"
    return precision


Factors = Literal["float32", "tf32", "bfloat16"]
"""How the factors of a network's products are rounded: not, to ten bits on GPUs that have it, or to seven."""


@contextlib.contextmanager
def multiplied_in(factors: Factors) -> Iterator[None]:
    """Let GPUs round the factors of float32 products to ten bits, if asked, until the context is left."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if factors == "tf32" else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def outputs_in(factors: Factors, network: nn.Module, rows: Tensor) -> Tensor:
    """Return the network's outputs (B, E) float32 at rows (B, D)."""
    with torch.autocast(rows.device.type, torch.bfloat16, enabled=factors == "bfloat16"):
        outputs: Tensor = network(rows)
    return outputs.float()

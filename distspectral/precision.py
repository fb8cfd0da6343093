"""In which numbers matrices are multiplied: bfloat16 where the hardware does that faster, else float32.

CPUs with AMX or AVX512-BF16 are three to eight times as fast in it, others imitate it and are slower; so a device is
asked, and a CPU timed. Only the factors of products are rounded: weights, moments and sums stay float32 or wider.
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
Factors = Literal["float32", "tf32", "bfloat16"]
"""How the factors of products are rounded: not, to ten bits on GPUs that have it, or to seven."""

SIZE = 512
"""Of the square matrices that are multiplied; a few milliseconds in all."""
LEAST_GAIN = 1.5
TRIES = 8
"""In turns, so that other work beside slows down both kinds of product; the best of each counts."""


@functools.cache
def fast_bfloat16(device: torch.device) -> bool:
    """Whether products of bfloat16 take at most two thirds of the time of float32's; measured once per process."""
    if device.type != "cpu":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():  # an imitation takes a hundred times as long to time
        return False
    rounded, whole = [], []
    for _ in range(1 + TRIES):
        rounded.append(_product_s(torch.bfloat16))
        whole.append(_product_s(torch.float32))
    return min(rounded[1:]) * LEAST_GAIN < min(whole[1:])  # the first ones take longer


def _product_s(dtype: torch.dtype) -> float:
    """Return the seconds of one product on the CPU."""
    matrix = torch.ones(SIZE, SIZE, dtype=dtype)
    began = time.perf_counter()
    torch.mm(matrix, matrix)
    return time.perf_counter() - began


def training_factors(precision: TrainPrecision, device: torch.device) -> Factors:
    """Return how the factors of a network's products are rounded while it learns on a device."""
    if precision == "bfloat16" or (precision == "auto" and fast_bfloat16(device)):
        return "bfloat16"
    return "tf32" if device.type == "cuda" else "float32"


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
    """Return the network's outputs (B, E), float32 or wider, at rows (B, D)."""
    with torch.autocast(rows.device.type, torch.bfloat16, enabled=factors == "bfloat16"):
        outputs: Tensor = network(rows)
    return outputs.to(torch.promote_types(outputs.dtype, torch.float32))

"""Whether a device multiplies bfloat16 faster than float32: asked of the device, because not all that can are faster.

CPUs with AMX or AVX512-BF16 are three to eight times as fast, others emulate it and are slower.
"""

from __future__ import annotations

import functools
import time

import torch

SIZE = 512
"""Of the square matrices that are multiplied; a few milliseconds in all."""
LEAST_GAIN = 1.5
TRIES = 3


@functools.cache
def fast_bfloat16(device: torch.device) -> bool:
    """Whether products of bfloat16 take at most two thirds of the time of float32's; measured once per process."""
    if device.type != "cpu":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return _product_s(torch.bfloat16) * LEAST_GAIN < _product_s(torch.float32)


def _product_s(dtype: torch.dtype) -> float:
    """Return the seconds of one product on the CPU, the best of several; the first is not counted."""
    matrix = torch.ones(SIZE, SIZE, dtype=dtype)
    seconds = []
    for _ in range(1 + TRIES):
        began = time.perf_counter()
        torch.mm(matrix, matrix)
        seconds.append(time.perf_counter() - began)
    return min(seconds[1:])

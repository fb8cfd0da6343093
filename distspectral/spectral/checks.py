"""What must hold of numbers on a device: noted where they are made, read by the host once for all of them.

Each read makes the host wait until a GPU has caught up, so a condition is kept as a tensor until someone has to act.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import torch
from torch import Tensor


@dataclasses.dataclass(frozen=True)
class Check:
    """A condition on the device, and the error that answers its failure.

    Attributes:
        code: () integer or bool; 0 where the condition holds.
        error: makes the error from another code.
    """

    code: Tensor
    error: Callable[[int], Exception]


def finite(error: Exception, *tensors: Tensor) -> Check:
    """Return the check that no element of the tensors is NaN or infinite."""
    all_finite = torch.stack([torch.isfinite(tensor).all() for tensor in tensors]).all()
    return Check(~all_finite, lambda _: error)


def raise_first(checks: Sequence[Check]) -> None:
    """Raise the error of the first check that fails. Host reads: one, whatever the number of checks."""
    codes = torch.stack([check.code.long() for check in checks]).tolist()
    for check, code in zip(checks, codes, strict=True):
        if code:
            raise check.error(code)

"""A network behind the frame of its rows: raw numbers in.

Shape letters: B rows, D features.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from distspectral.storage.rows.frame import Frame


class Framed(nn.Module):
    """A module for framed rows, for raw ones.

    Args:
        frame: of the rows.
        module: whatever takes framed rows (B, D) float32.

    Attributes:
        input_type: of raw rows, float64 where float32 would lose what the frame takes away.
    """

    factor: Tensor
    origin: Tensor | None

    def __init__(self, frame: Frame, module: nn.Module) -> None:
        super().__init__()
        self.input_type: torch.dtype = getattr(torch, frame.input_type)
        self.register_buffer("factor", torch.tensor(frame.factor, dtype=self.input_type))
        self.register_buffer("origin", None if frame.origin is None else torch.from_numpy(frame.origin))
        self.unit = 2.0**-frame.exponent
        self.module = module

    def forward(self, vectors: Tensor) -> Any:
        """Return the module's outputs at raw rows (B, D) of :attr:`input_type`."""
        moved = vectors.to(self.input_type) * self.factor
        if self.origin is not None:
            moved = moved - self.origin
        return self.module((moved * self.unit).float())

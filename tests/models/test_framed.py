from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from distspectral.models.framed import Framed
from distspectral.storage.rows.frame import Frame

ROWS = np.random.default_rng(0).standard_normal((40, 3))
MADE = {
    "plain": (ROWS.astype(np.float32), Frame(0.3)),
    "far": (ROWS + 1.7e9, Frame.of(ROWS + 1.7e9)),
    "huge": (ROWS * 1e200, Frame.of(ROWS * 1e200)),
    "far, huge and times a factor": ((ROWS + 1e6) * 1e50, Frame.of((ROWS + 1e6) * 1e50, 0.7)),
}


@pytest.mark.parametrize("kind", MADE)
def test_the_module_sees_what_the_frame_makes_bit_for_bit(kind: str) -> None:
    rows, frame = MADE[kind]
    module = Framed(frame, nn.Identity())
    assert module.input_type == torch.from_numpy(rows).dtype
    seen = module(torch.from_numpy(rows))
    assert seen.dtype == torch.float32
    np.testing.assert_array_equal(seen.numpy(), frame.framed(rows))

"""Adam without torch's compiler, and without moments that are too small to count and slow to multiply.

The compiler's import takes more than a second of each process that makes an optimiser.
"""

from __future__ import annotations

import torch
from torch import nn, optim

VANISHED = 1e-30
"""Moments below it are zero to any weight, for Adam adds 1e-8 to the root of the second.

The first moment of a weight without gradients falls by a tenth a step, so a hundred steps from here to the subnormal
numbers, in which it stays and processors multiply a hundred times slower. Of MNIST's autoencoder 5% of the moments had
got there after 1,200 steps, and a step of Adam took three times as long."""


class Adam(optim.Adam):
    """Torch's Adam, its methods as they are inside the wrappers that keep the compiler from tracing them.

    Nothing here is traced. The wrappers import the compiler to say so, which a fit of a few seconds feels.
    """

    step = torch.no_grad()(optim.Adam.step.__wrapped__)  # type: ignore[attr-defined]
    add_param_group = optim.Optimizer.add_param_group.__wrapped__  # type: ignore[attr-defined]
    zero_grad = optim.Optimizer.zero_grad.__wrapped__  # type: ignore[attr-defined]
    state_dict = optim.Optimizer.state_dict.__wrapped__  # type: ignore[attr-defined]
    load_state_dict = optim.Optimizer.load_state_dict.__wrapped__  # type: ignore[attr-defined]

    def forget_vanished(self) -> None:
        """Set moments below :data:`VANISHED` to zero; wanted every hundred steps or so."""
        for moments in self.state.values():
            for name in ("exp_avg", "exp_avg_sq"):
                moments[name].copy_(nn.functional.hardshrink(moments[name], VANISHED))

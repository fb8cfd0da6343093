"""Adam without torch's compiler, whose import takes more than a second of each process that makes an optimiser."""

from __future__ import annotations

import torch
from torch import optim


class Adam(optim.Adam):
    """Torch's Adam, its methods as they are inside the wrappers that keep the compiler from tracing them.

    Nothing here is traced. The wrappers import the compiler to say so, which a fit of a few seconds feels.
    """

    step = torch.no_grad()(optim.Adam.step.__wrapped__)  # type: ignore[attr-defined]
    add_param_group = optim.Optimizer.add_param_group.__wrapped__  # type: ignore[attr-defined]
    zero_grad = optim.Optimizer.zero_grad.__wrapped__  # type: ignore[attr-defined]
    state_dict = optim.Optimizer.state_dict.__wrapped__  # type: ignore[attr-defined]
    load_state_dict = optim.Optimizer.load_state_dict.__wrapped__  # type: ignore[attr-defined]

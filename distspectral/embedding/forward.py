"""Rows in NumPy through a network and back, a block at a time.

Shape letters: N rows, B rows of a block, D features, E outputs.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from distspectral.embedding.transfer import as_tensor
from distspectral.storage.rows.vectors import Vectors

BLOCK_ROWS = 1 << 14
"""Rows that pass the network at a time."""


@torch.inference_mode()
def forward(network: nn.Module, block: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the network's outputs (B, E) float32 at a block (B, D), computed where its parameters are."""
    device = next(network.parameters()).device
    outputs: NDArray[np.float32] = network(as_tensor(block).to(device)).float().cpu().numpy()
    return outputs


def in_blocks(network: nn.Module, rows: Vectors) -> NDArray[np.float32]:
    """Return the network's outputs (N, E) at all rows, one block in flight at a time."""
    starts = range(0, rows.n_rows, BLOCK_ROWS)
    return np.concatenate([forward(network, rows.block(i, min(i + BLOCK_ROWS, rows.n_rows))) for i in starts])

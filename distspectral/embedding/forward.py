"""Rows in NumPy through a network and back, a block at a time.

Shape letters: N rows, B rows of a block, D features, E outputs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from distspectral.embedding.transfer import as_tensor, sparse_tensor
from distspectral.storage.rows.vectors import Vectors

BLOCK_ROWS = 1 << 14
"""Most rows that pass the network at a time."""
BLOCK_BYTES = 1 << 26
"""Most bytes of them in float32."""
CPU_ROWS = 1 << 10
"""Rows for each thread of a CPU that pass the network at once: what its layers put out then stays in the cache. With
16,384 networks 16-512-256-45 and 64-512-512-10 took 1.6 times as long, and 784-512-256-16 1.2 times."""


def rows_of_block(dim: int) -> int:
    """Return how many rows of D features pass the network at a time."""
    return min(BLOCK_ROWS, max(1, BLOCK_BYTES // (4 * dim)))


def parts(rows: Tensor) -> Sequence[Tensor]:
    """Return the parts of a block (B, D), in order, that pass a network at once on the block's device."""
    if rows.device.type != "cpu" or rows.is_sparse:
        return (rows,)
    return torch.split(rows, CPU_ROWS * torch.get_num_threads())


@torch.inference_mode()
def forward(network: nn.Module, block: NDArray[np.float32] | Tensor) -> NDArray[np.float32]:
    """Return the network's outputs (B, E) float32 at a block (B, D), computed where its parameters are."""
    device = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
    rows = block if isinstance(block, Tensor) else as_tensor(block)
    outputs: NDArray[np.float32] = torch.cat([network(part).float() for part in parts(rows.to(device))]).cpu().numpy()
    return outputs


def in_blocks(network: nn.Module, rows: Vectors) -> NDArray[np.float32]:
    """Return the network's outputs (N, E) at all rows, one block in flight at a time."""
    step, outputs = rows_of_block(rows.dim), []
    for start in range(0, rows.n_rows, step):
        stop = min(start + step, rows.n_rows)
        thin = sparse_tensor(rows, np.arange(start, stop))
        outputs.append(forward(network, rows.block(start, stop) if thin is None else thin))
    return np.concatenate(outputs)

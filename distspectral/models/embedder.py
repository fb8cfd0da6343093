"""A raw row to its embedding and cluster: what a finished run has learned, as one module.

Shape letters: B rows, D features, P components.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from distspectral.models.assigner import Assigner
from distspectral.models.encoded import EncodedNetwork

Precision = Literal["float32", "bfloat16", "float16"]


class Embedder(nn.Module):
    """Raw vectors in; embedding, cluster and distance out.

    Args:
        network: calibrated.
        assigner: fitted in the network's embedding.
        precision: of the network's matrix products; distances stay in float32, where small ones are differences of
            numbers near 1.
    """

    def __init__(self, network: EncodedNetwork, assigner: Assigner, precision: Precision = "float32") -> None:
        super().__init__()
        self.network, self.assigner, self.precision = network, assigner, precision

    def embedding(self, x: Tensor) -> Tensor:
        """Return the embedding (B, P) float32 of rows ``x`` (B, D)."""
        if self.precision == "float32":
            embedding: Tensor = self.network(x)
            return embedding
        with torch.autocast(x.device.type, getattr(torch, self.precision)):
            embedding = self.network(x)
        return embedding.float()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return embedding (B, P), cluster (B,) int64 and distance to its centroid (B,) of rows ``x`` (B, D)."""
        embedding = self.embedding(x)
        cluster, distance = self.assigner(embedding)
        return embedding, cluster, distance

"""A raw row to its embedding and cluster: what a finished run has learned, as one module.

Shape letters: B rows, D features, P components.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from distspectral.models.assigner import Assigner
from distspectral.models.encoded import EncodedNetwork
from distspectral.models.map_network import MapNetwork

Precision = Literal["float32", "bfloat16", "float16"]


class Embedder(nn.Module):
    """Raw vectors in; embedding, cluster and distance out, and where the map has a row, if there is one.

    Args:
        network: calibrated.
        assigner: fitted in the network's embedding.
        precision: of the network's matrix products; distances stay in float32, where small ones are differences of
            numbers near 1.
        map_network: trained on what the network sees and gives; None where no map was drawn.
    """

    def __init__(
        self,
        network: EncodedNetwork,
        assigner: Assigner,
        precision: Precision = "float32",
        map_network: MapNetwork | None = None,
    ) -> None:
        super().__init__()
        self.network, self.assigner, self.precision = network, assigner, precision
        self.map_network = map_network

    def embedding(self, x: Tensor) -> Tensor:
        """Return the embedding (B, P) float32 of rows ``x`` (B, D)."""
        return self.placed(x)[0]

    def placed(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the embedding (B, P) and the places on the map (B, 2), float32, of rows ``x`` (B, D)."""
        if self.precision == "float32":
            return self._placed(x)
        with torch.autocast(x.device.type, getattr(torch, self.precision)):
            embedding, places = self._placed(x)
        return embedding.float(), places

    def _placed(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        seen = self.network.seen(x)
        embedding: Tensor = self.network.perceptron(seen)
        return embedding, None if self.map_network is None else self.map_network(seen, embedding)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return embedding (B, P), cluster (B,) int64 and distance to its centroid (B,) of rows ``x`` (B, D).

        Where there is a map, the places on it follow, x (B,) and y (B,).
        """
        embedding, places = self.placed(x)
        cluster, distance = self.assigner(embedding)
        return embedding, cluster, distance, *(() if places is None else places.unbind(1))

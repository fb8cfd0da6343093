"""A raw row to its embedding, cluster and leaf: what a finished run has learned, as one module.

Shape letters: B rows, D features, S features that the network sees, P components.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from distspectral.models.assigner import Assigner
from distspectral.models.encoded import EncodedNetwork
from distspectral.models.map_network import MapNetwork
from distspectral.models.outliers import Outliers

Precision = Literal["float32", "bfloat16", "float16"]


class Embedder(nn.Module):
    """Raw vectors in; all that is known of a row out: where the map has it, too, if there is one.

    Args:
        network: calibrated.
        assigner: fitted in the network's embedding.
        precision: of the network's matrix products; distances stay in float32, where small ones are differences of
            numbers near 1.
        outliers: fitted to the rows that the network was trained on; None takes no row for one.
        map_network: trained on what the network sees and gives; None where no map was drawn.
    """

    def __init__(
        self,
        network: EncodedNetwork,
        assigner: Assigner,
        precision: Precision = "float32",
        outliers: Outliers | None = None,
        map_network: MapNetwork | None = None,
    ) -> None:
        super().__init__()
        self.network, self.assigner, self.precision = network, assigner, precision
        width = len(network.perceptron.input_mean)
        self.outliers = Outliers.none(len(assigner.centroids), width) if outliers is None else outliers
        self.map_network = map_network

    def embedding(self, x: Tensor) -> Tensor:
        """Return the embedding (B, P) float32 of rows ``x`` (B, D)."""
        return self.seen_and_embedding(x)[1]

    def seen_and_embedding(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the network sees (B, S) of rows ``x`` (B, D), and their embedding (B, P), in float32."""
        if self.precision == "float32":
            seen = self.network.seen(x)
            return seen, self.network.perceptron(seen)
        with torch.autocast(x.device.type, getattr(torch, self.precision)):
            seen = self.network.seen(x)
            embedding: Tensor = self.network.perceptron(seen)
        return seen.float(), embedding.float()

    def are_outliers(self, seen: Tensor, embedding: Tensor, cluster: Tensor, leaf: Tensor) -> Tensor:
        """Return whether rows belong nowhere (B,) bool.

        Args:
            seen: (B, S) what the network sees of them.
            embedding: (B, P).
            cluster: (B,).
            leaf: (B,).
        """
        found: Tensor = self.outliers(seen, cluster, self.assigner.leaf_distances(embedding, leaf))
        return found

    def places(self, seen: Tensor, embedding: Tensor) -> Tensor | None:
        """Return the places on the map (B, 2) float32 of what the network sees (B, S) and gives (B, P), if any."""
        if self.map_network is None:
            return None
        found: Tensor = self.map_network(seen, embedding)
        return found

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return what is known of rows ``x`` (B, D).

        Returns:
            embedding (B, P); cluster (B,) int64 and the distance (B,) to its centroid; leaf (B,) int64; whether the row
            belongs nowhere (B,) bool; where there is a map, the places on it, x (B,) and y (B,).
        """
        seen, embedding = self.seen_and_embedding(x)
        cluster, distance = self.assigner(embedding)
        leaf, places = self.assigner.leaf(embedding, cluster), self.places(seen, embedding)
        outlier = self.are_outliers(seen, embedding, cluster, leaf)
        return embedding, cluster, distance, leaf, outlier, *(() if places is None else places.unbind(1))

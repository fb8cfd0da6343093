"""A raw row to its embedding, cluster and leaf: what a finished run has learned, as one module.

Shape letters: B rows, D features, S features that the network sees, P components.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from distspectral.models.assigner import Assigner
from distspectral.models.encoded import EncodedNetwork
from distspectral.models.outliers import Outliers

Precision = Literal["float32", "bfloat16", "float16"]


class Embedder(nn.Module):
    """Raw vectors in; embedding, cluster, distance, leaf and whether the row is an outlier out.

    Args:
        network: calibrated.
        assigner: fitted in the network's embedding.
        precision: of the network's matrix products; distances stay in float32, where small ones are differences of
            numbers near 1.
        outliers: fitted to the rows that the network was trained on; None takes no row for one.
    """

    def __init__(
        self,
        network: EncodedNetwork,
        assigner: Assigner,
        precision: Precision = "float32",
        outliers: Outliers | None = None,
    ) -> None:
        super().__init__()
        self.network, self.assigner, self.precision = network, assigner, precision
        width = len(network.perceptron.input_mean)
        self.outliers = Outliers.none(len(assigner.centroids), width) if outliers is None else outliers

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

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Return what is known of rows ``x`` (B, D).

        Returns:
            embedding (B, P); cluster (B,) int64 and the distance (B,) to its centroid; leaf (B,) int64; whether the row
            belongs nowhere (B,) bool.
        """
        seen, embedding = self.seen_and_embedding(x)
        cluster, distance = self.assigner(embedding)
        leaf = self.assigner.leaf(embedding, cluster)
        return embedding, cluster, distance, leaf, self.are_outliers(seen, embedding, cluster, leaf)

"""A model of a stated size with random weights: speed does not depend on what is in them.

Shape letters: D features, P components, C clusters.
"""

from __future__ import annotations

import dataclasses

import torch

from distspectral.models.assigner import Assigner
from distspectral.models.embedder import Embedder
from distspectral.models.encoded import EncodedNetwork
from distspectral.models.networks import Perceptron
from distspectral.serving.predictor import OUTPUTS, Predictor
from distspectral.storage.rows.frame import Frame


@dataclasses.dataclass(frozen=True)
class RandomModel:
    """Makes a predictor, the same every time.

    Attributes:
        dim: D.
        hidden: units of each hidden layer.
        n_components: P.
        n_clusters: C.
    """

    dim: int
    hidden: tuple[int, ...] = (512, 512)
    n_components: int = 10
    n_clusters: int = 10

    def embedder(self) -> Embedder:
        """Return the module alone."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = EncodedNetwork(Perceptron(self.dim, self.n_components, self.hidden))
            centroids = torch.randn(self.n_clusters, self.n_components)
        return Embedder(network, Assigner(torch.ones(self.n_components), centroids, True, 1.0)).eval()

    def __call__(self) -> Predictor:
        """Return the predictor."""
        card = {"what": "a network of random weights, for measurements"} | dataclasses.asdict(self)
        return Predictor(self.embedder(), OUTPUTS, self.dim, Frame(), card, {})

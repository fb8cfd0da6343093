"""The map of an estimator, drawn when it is asked for: a training of its own after the fit.

Shape letters: N rows fitted to, B rows, P components.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted

from distspectral.embedding.forward import in_blocks
from distspectral.errors import MissingArtifactError
from distspectral.estimators.base import NetworkEstimator
from distspectral.estimators.progress import fit_shown
from distspectral.graph.store import Graph
from distspectral.models.encoded import EncodedNetwork
from distspectral.models.map_network import MapNetwork
from distspectral.models.networks import torch_device
from distspectral.recipes import SpectralRecipe
from distspectral.storage.rows.vectors import Vectors
from distspectral.training.map import MapSettings
from distspectral.training.modes import plain_torch


class _Placing(torch.nn.Module):
    """Framed rows (B, D) to places (B, 2)."""

    def __init__(self, network: EncodedNetwork, map_network: MapNetwork) -> None:
        super().__init__()
        self.network, self.map_network = network, map_network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        seen = self.network.seen(x)
        places: torch.Tensor = self.map_network(seen, self.network.perceptron(seen))
        return places


class MapMixin(NetworkEstimator):
    """An estimator of eigenfunctions that can draw a map of its rows.

    Attributes:
        map_: (N, 2) float32 places of the rows fitted to, once :meth:`map` has drawn them.
    """

    _map_network: MapNetwork | None
    _map_basis: tuple[Vectors, Graph, MapSettings] | None
    """What it is trained on: kept in memory from the fit until the map is drawn, in no file and no pickle."""

    @plain_torch()
    def map(self, X: ArrayLike | None = None) -> NDArray[np.float32]:
        """Return the places (B, 2) of rows on a map to look at, in which neighbours lie near each other.

        The first call trains a network for it, which takes about as long as the eigenfunctions took.

        Args:
            X: (B, D) rows, seen or unseen; None: the rows fitted to.

        Raises:
            MissingArtifactError: the estimator was saved, or copied, before the map was drawn.
        """
        check_is_fitted(self)
        if self._map_network is None:
            self._draw()
        if X is None:
            return self.map_
        assert self._map_network is not None, "has just been drawn"
        placing = _Placing(self._model.network, self._map_network).to(torch_device(self.device))
        return in_blocks(placing, self._rows(X, reset=False, accept_sparse="csr"))

    def _draw(self) -> None:
        if self._map_basis is None:
            raise MissingArtifactError(
                f"{type(self).__name__}: was saved or copied before its map was drawn, without the rows that this "
                "takes; call map() before, or fit again"
            )
        seen, graph, settings = self._map_basis
        trainer = settings.trainer_upon(self._model.network.perceptron, seen, graph)
        fit_shown(trainer, "map", self.verbose)
        self.map_ = in_blocks(trainer.network, seen)
        self._map_network, self._map_basis = trainer.model.cpu(), None

    def _can_draw(self, seen: Vectors, graph: Graph, recipe: SpectralRecipe) -> None:
        """Take what a map is trained on; one that was drawn before is that of another fit."""
        self.__dict__.pop("map_", None)
        settings = MapSettings(train=recipe.map, seed=recipe.seed)
        self._map_network, self._map_basis = None, (seen, graph, settings)

    def _map_state(self) -> dict[str, Any]:
        return {} if self._map_network is None else self._map_network.state_dict()

    def _restore_map(self, state: dict[str, Any]) -> None:
        self._map_network, self._map_basis = MapNetwork.from_state(state) if state else None, None

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()
        return state | ({"_map_basis": None} if "_map_basis" in state else {})

"""What a fitted SpectralNet answers: coordinates, clusters, probabilities, cuts of the tree, exemplars.

Nothing here is learned.
Shape letters: N rows fitted to, B rows asked about, D features, P components, C clusters, M leaves.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import ClusterMixin
from sklearn.utils import ClassifierTags, Tags
from sklearn.utils.validation import check_is_fitted

from distspectral.embedding.forward import BLOCK_ROWS, in_blocks, rows_of_block
from distspectral.embedding.transfer import gathered
from distspectral.errors import ConfigError
from distspectral.estimators.map import MapMixin
from distspectral.estimators.plot import PlotMixin
from distspectral.estimators.stored import plain
from distspectral.models.assigner import Assigner
from distspectral.models.embedder import Embedder
from distspectral.models.encoded import EncodedNetwork
from distspectral.models.networks import torch_device
from distspectral.models.outliers import Outliers
from distspectral.spectral.exemplars import first_of_each
from distspectral.spectral.tree import Tree
from distspectral.storage.rows.vectors import Vectors
from distspectral.training.modes import plain_torch


class FittedSpectral(PlotMixin, ClusterMixin, MapMixin):  # type: ignore[misc]
    """The methods of an estimator that has learned eigenfunctions, clusters and their tree.

    Attributes:
        include_constant: whether :meth:`transform` gives the constant function, too.
        eigenvalues_: (P,) float64.
        embedding_: (N, P) float32.
        labels_: (N,) int32.
        leaves_: (N,) int32.
        cluster_centers_: (C, P) float32.
        n_clusters_: C.
        model_: torch module, (B, D) to embedding, cluster and distance.
    """

    @plain_torch()
    def transform(self, X: ArrayLike) -> NDArray[np.float32]:
        """Return the eigenfunctions at rows ``X`` (B, D), seen or unseen.

        They are (B, P - 1), for the constant one tells nothing apart; (B, P) with ``include_constant``.
        """
        check_is_fitted(self)
        return self._told(self._embed(self._rows(X, reset=False, accept_sparse="csr")))

    @plain_torch()
    def predict(self, X: ArrayLike) -> NDArray[np.int32]:
        """Return the cluster (B,) of each row of ``X`` (B, D); one row alone gets the label it gets in company.

        But for rounding, which decides at a border between clusters.
        """
        check_is_fitted(self)
        return self._clusters(self._embed(self._rows(X, reset=False, accept_sparse="csr")))

    @plain_torch()
    def predict_proba(self, X: ArrayLike) -> NDArray[np.float32]:
        """Return the probability (B, C) of each cluster at rows ``X`` (B, D): exp(-d^2 / (2 variance)) over its sum.

        d is the distance to a centroid, the variance that of the training rows around theirs.
        """
        check_is_fitted(self)
        embedding = torch.from_numpy(self._embed(self._rows(X, reset=False, accept_sparse="csr")))
        assigner = self._model.assigner
        parts = [
            assigner.probabilities(assigner.squared_distances(part)) for part in torch.split(embedding, BLOCK_ROWS)
        ]
        return torch.cat(parts).numpy()

    @plain_torch()
    def cut(self, n_clusters: int, X: ArrayLike | None = None) -> NDArray[np.int32]:
        """Return the cluster of each row where the tree is cut into ``n_clusters``; nothing is fitted.

        Clusters are numbered by falling rows; at ``n_clusters_`` they are ``labels_``.

        Args:
            n_clusters: from 1 to the number of leaves.
            X: (B, D) rows; None: the training rows.

        Raises:
            TooManyClustersError: a ValueError; more clusters than leaves.
            ConfigError: a ValueError; no positive integer.
        """
        check_is_fitted(self)
        n_clusters = _positive(n_clusters, "n_clusters")
        leaves = self.leaves_
        if X is not None:
            embedding = torch.from_numpy(self._embed(self._rows(X, reset=False, accept_sparse="csr")))
            assigner = self._model.assigner
            parts = [assigner.leaf(part, assigner(part)[0]) for part in torch.split(embedding, BLOCK_ROWS)]
            leaves = torch.cat(parts).numpy()
        return Tree(**self._tree).labels(n_clusters).astype(np.int32)[leaves]

    @plain_torch()
    def outliers(self, X: ArrayLike) -> NDArray[np.bool_]:
        """Return whether rows of ``X`` (B, D) belong nowhere, (B,); ``outliers_`` are those of the training rows."""
        check_is_fitted(self)
        rows, model = self._rows(X, reset=False, accept_sparse="csr"), self._model.cpu()
        step, found = rows_of_block(rows.dim), []
        for start in range(0, rows.n_rows, step):
            block = gathered(rows, np.arange(start, min(start + step, rows.n_rows)))
            with torch.inference_mode():
                seen, embedding = model.seen_and_embedding(block)
                cluster, _ = model.assigner(embedding)
                found.append(model.are_outliers(seen, embedding, cluster, model.assigner.leaf(embedding, cluster)))
        return torch.cat(found).numpy()

    def exemplars(self, n_rows: int = 10) -> tuple[list[NDArray[np.int64]], list[NDArray[np.int64]]]:
        """Return row numbers of the most central and of the border rows of each cluster, ``n_rows`` each at most.

        Central rows are nearest to their centroid. Border rows have the least margin, by which the next centroid is
        farther; a cluster without others has none.

        Args:
            n_rows: of each kind.

        Raises:
            ConfigError: a ValueError; no positive integer.

        Returns:
            central: by cluster, of the rows fitted to, the nearest first.
            border: likewise, the least margin first.
        """
        check_is_fitted(self)
        n_rows = _positive(n_rows, "n_rows")
        assigner, distances, margins = self._model.assigner, [], []
        for part in torch.split(torch.from_numpy(self.embedding_), BLOCK_ROWS):
            squared = assigner.squared_distances(part)
            distances.append(squared.min(1).values.numpy())
            margins.append(assigner.margins(squared).numpy())
        rows = np.arange(len(self.labels_))
        found = [
            first_of_each(self.labels_, values, rows, n_rows) for values in map(np.concatenate, (distances, margins))
        ]
        central, border = ([one[self.labels_[one] == cluster] for cluster in range(self.n_clusters_)] for one in found)
        return central, border

    def fit_transform(self, X: ArrayLike, y: Any = None, **fit_params: Any) -> NDArray[np.float32]:
        """Fit and return what :meth:`transform` gives for the training rows."""
        return self._told(self.fit(X, y, **fit_params).embedding_)

    def _model_state(self) -> dict[str, Any]:
        model = self._model
        return {
            "network": model.network.state(),
            "assigner": model.assigner.state(),
            "outliers": model.outliers.state_dict(),
            "map": self._map_state(),
        }

    def _restore_model(self, state: dict[str, Any]) -> None:
        network, outliers = EncodedNetwork.from_state(state["network"]), Outliers.from_state(state["outliers"])
        self._set_model(Embedder(network, Assigner.from_state(state["assigner"]), outliers=outliers))
        self._restore_map(state["map"])

    def _set_model(self, model: Any) -> None:
        super()._set_model(model)
        self.cluster_centers_ = model.assigner.centroids.numpy()
        self.n_clusters_ = len(self.cluster_centers_)

    def _embed(self, rows: Vectors) -> NDArray[np.float32]:
        return in_blocks(self._model.network.to(torch_device(self.device)), rows)

    def _told(self, embedding: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return of functions (B, P) those that :meth:`transform` gives."""
        return embedding if self.include_constant else embedding[:, 1:].copy()

    def _clusters(self, embedding: NDArray[np.float32]) -> NDArray[np.int32]:
        """Return the cluster (B,) of each embedded row (B, P)."""
        parts = torch.split(torch.from_numpy(embedding), BLOCK_ROWS)
        return torch.cat([self._model.assigner(part)[0] for part in parts]).numpy().astype(np.int32)

    @property
    def _n_features_out(self) -> int:
        """Columns of :meth:`transform`, for ``get_feature_names_out``."""
        return len(self.eigenvalues_) - (not self.include_constant)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.classifier_tags = ClassifierTags()  # which scikit-learn's checks read of all that predict probabilities
        return tags


def _positive(value: Any, name: str) -> int:
    """Return a parameter that is an integer of at least 1.

    Raises:
        ConfigError: it is none.
    """
    value = plain(value)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigError(f"{name}: expected an integer of at least 1 (got {value!r})")
    return value

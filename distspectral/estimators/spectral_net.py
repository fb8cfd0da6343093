"""SpectralNet with scikit-learn's interface: arrays in memory, one process, no Ray.

The graph, training, calibration and clustering are the functions that the stages call on a cluster.
Shape letters: N rows, D features, P components, C clusters.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from pydantic import ValidationError
from scipy import sparse
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, ClusterMixin, TransformerMixin
from sklearn.utils import Tags, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from distspectral.clusters import ClusterConfig
from distspectral.embedding.forward import BLOCK_ROWS, in_blocks
from distspectral.errors import ConfigError, TooManyClustersError
from distspectral.estimators.representation import RepresentationSettings, represent_rows
from distspectral.graph.config import AffinityConfig, AffinitySpace, GraphConfig
from distspectral.models.assigner import Assigner
from distspectral.models.embedder import Embedder
from distspectral.models.encoded import EncodedNetwork
from distspectral.models.networks import NetworkConfig, torch_device
from distspectral.objectives.spectral import SpectralConfig, default_n_components
from distspectral.spectral.affinity import AffinityKind
from distspectral.spectral.diagnostics import suggested_n_clusters
from distspectral.stages.calibrate import calibrated, edge_sums
from distspectral.stages.cluster import fit_assigner
from distspectral.stages.plan import Representation
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.rows.sparse import SparseVectors
from distspectral.storage.rows.vectors import ArrayVectors, Vectors
from distspectral.training.autoencoder import AutoencoderConfig, AutoencoderSettings
from distspectral.training.checkpoint import read_state, write_state
from distspectral.training.loop import WindowRecorder
from distspectral.training.siamese import SiameseConfig, SiameseSettings
from distspectral.training.spectral import SpectralSettings, SpectralTrainConfig

PARAMETERS: dict[int | str, str] = {"kind": "affinity"}
"""Parameters of the estimator that the configs call otherwise."""


class SpectralNet(ClassNamePrefixFeaturesOutMixin, TransformerMixin, ClusterMixin, BaseEstimator):  # type: ignore[misc]
    """Spectral embedding and clustering by a neural network that also embeds rows it has not seen.

    A network is trained so that its outputs span the lowest eigenvectors of the Laplacian of the data's
    nearest-neighbour graph; an exact pass over all edges then rotates them into eigenvectors, in eigenvalue
    order, and k-means on them gives the clusters. ``predict`` never refits.

    Args:
        n_clusters: C, or ``auto``: at the largest relative gap of the eigenvalues.
        representation: what neighbours are searched in: ``input``, ``code`` (of an autoencoder), or ``auto``: codes
            where they keep at least half of the variance of rows that the autoencoder never saw.
        affinity_space: whose distances weigh the edges: ``euclidean``, or ``siamese``, a network trained on the
            graph's edges.
        n_components: P, eigenfunctions kept, the constant one included; None chooses from ``n_clusters``.
        n_neighbors: neighbours of each row in the graph; at most N - 1 are used.
        affinity: ``self_tuning``, ``fuzzy``, ``gaussian``, ``uniform`` or ``shared_neighbors``.
        laplacian: ``random_walk`` weighs rows by degree, ``unnormalized`` alike.
        hidden: units of each hidden layer.
        batch_size: edges per step.
        max_steps: budget of steps; training ends earlier on a plateau.
        device: ``auto``, ``cpu`` or ``cuda``, for search and training.
        random_state: seed, None or a RandomState; the same seed on the same machine gives the same result.
        verbose: print a line per window of steps.

    Attributes:
        eigenvalues_: (P,) float64 Ritz values of the kept functions, ascending; the first is 0. Those of the
            unnormalised Laplacian are divided by the mean degree.
        embedding_: (N, P) float32 eigenfunctions at the training rows, the constant 1 first, orthonormal under
            the Laplacian's row weights.
        labels_: (N,) int32 clusters of the training rows.
        cluster_centers_: (C, P) float32, in the coordinates clusters are sought in: functions scaled by
            diffusion time, rows scaled to length 1.
        n_clusters_: C.
        n_features_in_: D.
        history_: one dict of metrics per window of training steps.
        graph_: facts of the graph: components, share of the largest, degrees; ``explained_variance`` of codes.
        model_: torch module, (B, D) to embedding, cluster and distance.

    Example:
        >>> from distspectral import SpectralNet
        >>> from distspectral.datasets import two_moons
        >>> X, y = two_moons(2000, noise=0.06, seed=0)
        >>> labels = SpectralNet(n_clusters=2, random_state=0).fit_predict(X)

    Reference: Shaham et al., SpectralNet: Spectral Clustering using Deep Neural Networks, ICLR 2018.
    """

    def __init__(
        self,
        n_clusters: int | Literal["auto"] = 8,
        *,
        representation: Representation = "auto",
        affinity_space: AffinitySpace = "siamese",
        n_components: int | None = None,
        n_neighbors: int = 15,
        affinity: AffinityKind = "self_tuning",
        laplacian: Literal["random_walk", "unnormalized"] = "random_walk",
        hidden: tuple[int, ...] = (512, 256),
        batch_size: int = 1024,
        max_steps: int = 2000,
        device: Literal["auto", "cpu", "cuda"] = "auto",
        random_state: int | np.random.RandomState | None = None,
        verbose: bool = False,
    ) -> None:
        self.n_clusters = n_clusters
        self.representation = representation
        self.affinity_space = affinity_space
        self.n_components = n_components
        self.n_neighbors = n_neighbors
        self.affinity = affinity
        self.laplacian = laplacian
        self.hidden = hidden
        self.batch_size = batch_size
        self.max_steps = max_steps
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: ArrayLike, y: Any = None) -> Self:
        """Learn the embedding and the clusters of ``X``.

        Args:
            X: (N, D) numbers, finite, N at least 3, dense or SciPy sparse; computed with in float32, sparse rows made
                dense a block at a time.
            y: ignored.

        Raises:
            ConstantDataError, TooManyClustersError, ConfigError: all of them ValueErrors that say what to change.
            MissingDependencyError: FAISS is not installed.
        """
        rows = self._rows(X, reset=True)
        try:
            cluster, settings = ClusterConfig(n_clusters=self.n_clusters), self._settings(rows.n_rows)
        except ValidationError as error:
            raise ConfigError(problems(error)) from None
        if cluster.n_clusters != "auto" and cluster.n_clusters > rows.n_rows:
            raise TooManyClustersError(
                f"n_clusters = {cluster.n_clusters}, but X has {rows.n_rows} rows; ask for at most as many"
            )
        learned = represent_rows(rows, self._representation(settings), self._observer)
        self.graph_ = learned.facts

        trainer = settings.trainer(learned.seen, learned.graph)
        observer = self._observer("eigenfunctions")
        trainer.fit(observer)
        self.history_ = observer.history

        functions = ArrayVectors(in_blocks(trainer.model.network, learned.seen))
        sums = edge_sums(functions, learned.graph, 0, rows.n_rows, self.laplacian)
        perceptron, ritz_values = calibrated(trainer.model.network.cpu(), *sums, rows.n_rows, settings)
        network = EncodedNetwork(perceptron, **learned.encoders)
        self.eigenvalues_ = ritz_values[: settings.n_components]
        n_clusters = cluster.n_clusters
        if n_clusters == "auto":
            n_clusters = suggested_n_clusters(ritz_values, settings.n_components)
        assigner = fit_assigner(rows, network, self.eigenvalues_, n_clusters, cluster, settings.seed)
        self._set_model(Embedder(network, assigner))
        self.embedding_, self.labels_ = self._embed(rows)
        return self

    def transform(self, X: ArrayLike) -> NDArray[np.float32]:
        """Return the eigenfunctions (B, P) at rows ``X`` (B, D), seen or unseen."""
        check_is_fitted(self)
        return self._embed(self._rows(X, reset=False))[0]

    def predict(self, X: ArrayLike) -> NDArray[np.int32]:
        """Return the cluster (B,) of each row of ``X`` (B, D); one row alone gets the label it gets in company."""
        check_is_fitted(self)
        return self._embed(self._rows(X, reset=False))[1]

    def fit_transform(self, X: ArrayLike, y: Any = None, **fit_params: Any) -> NDArray[np.float32]:
        """Fit and return ``embedding_``."""
        return self.fit(X, y, **fit_params).embedding_

    def save(self, path: str | Path) -> None:
        """Write the fitted estimator to one file, whole or not at all; it holds no pickled code."""
        check_is_fitted(self)
        path = Path(path).absolute()
        seed = self.random_state if isinstance(self.random_state, int) else None
        state = {
            "params": self.get_params(deep=False) | {"random_state": seed, "hidden": list(self.hidden)},
            "network": self.model_.network.state(),
            "assigner": self.model_.assigner.state_dict(),
            "normalize_rows": self.model_.assigner.normalize_rows,
            "arrays": {
                name: torch.from_numpy(getattr(self, name)) for name in ("eigenvalues_", "embedding_", "labels_")
            },
            "history": self.history_,
            "graph": self.graph_,
        }
        write_state(Artifact(str(path.parent)), path.name, state)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Return the estimator that :meth:`save` wrote; it gives the same numbers.

        Raises:
            MissingArtifactError: there is no such file.
            DamagedArtifactError: it cannot be read.
        """
        path = Path(path).absolute()
        state = read_state(Artifact(str(path.parent)), path.name)
        estimator = cls(**state["params"] | {"hidden": tuple(state["params"]["hidden"])})
        network = EncodedNetwork.from_state(state["network"])
        parts = state["assigner"]
        estimator._set_model(Embedder(network, Assigner(parts["scale"], parts["centroids"], state["normalize_rows"])))
        for name, tensor in state["arrays"].items():
            setattr(estimator, name, tensor.numpy())
        estimator.n_features_in_ = network.dim
        estimator.history_, estimator.graph_ = state["history"], state["graph"]
        return estimator

    def _settings(self, n_rows: int) -> SpectralSettings:
        """Return the settings for ``n_rows``; few rows carry only few neighbours and functions."""
        n_neighbors = min(self.n_neighbors, n_rows - 1)
        wanted = self.n_components or default_n_components(self.n_clusters)
        n_components = wanted if self.n_components else max(min(wanted, n_rows // 2), 1)
        spectral = SpectralConfig(laplacian=self.laplacian)
        n_functions = max(min(spectral.n_functions(n_components), n_rows // 2), n_components, 2)
        return SpectralSettings(
            network=NetworkConfig(hidden=tuple(self.hidden)),
            spectral=spectral.model_copy(update={"oversampling": n_functions - n_components}),
            train=SpectralTrainConfig(batch_size=self.batch_size, max_steps=self.max_steps, device=self.device),
            affinity=AffinityConfig(kind=self.affinity, scale_neighbor=min(7, n_neighbors)),
            n_neighbors=n_neighbors,
            n_components=n_components,
            seed=int(check_random_state(self.random_state).randint(2**31 - 1)),
        )

    def _representation(self, settings: SpectralSettings) -> RepresentationSettings:
        """Return what is learned before the eigenfunctions."""
        budget = {"max_steps": self.max_steps, "device": self.device}
        return RepresentationSettings(
            representation=self.representation,
            space=self.affinity_space,
            autoencoder=AutoencoderSettings(train=AutoencoderConfig(**budget), seed=settings.seed),
            siamese=SiameseSettings(train=SiameseConfig(**budget), seed=settings.seed),
            graph=GraphConfig(n_neighbors=settings.n_neighbors, device=self.device),
            affinity=settings.affinity,
        )

    def _observer(self, trained: str) -> WindowPrinter:
        return WindowPrinter(self.verbose, trained)

    def _rows(self, X: ArrayLike, *, reset: bool) -> Vectors:
        minimum = 3 if reset else 1
        array = validate_data(
            self, X, reset=reset, accept_sparse="csr", dtype=np.float32, order="C", ensure_min_samples=minimum
        )
        return SparseVectors(array) if sparse.issparse(array) else ArrayVectors(array)

    def _set_model(self, model: Embedder) -> None:
        self.model_ = model.eval()
        self.cluster_centers_ = model.assigner.centroids.numpy()
        self.n_clusters_ = len(self.cluster_centers_)

    def _embed(self, rows: Vectors) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        """Return embedding (B, P) and clusters (B,) of rows, block by block."""
        embedding = in_blocks(self.model_.network.to(torch_device(self.device)), rows)
        assigner = self.model_.assigner
        parts = torch.split(torch.from_numpy(embedding), BLOCK_ROWS)
        clusters = torch.cat([assigner(part)[0] for part in parts]).numpy().astype(np.int32)
        return embedding, clusters

    @property
    def _n_features_out(self) -> int:
        """P, for ``get_feature_names_out``."""
        return len(self.eigenvalues_)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags


def problems(error: ValidationError) -> str:
    """Return each refused parameter with what was expected and what was given."""
    return "; ".join(
        f"{PARAMETERS.get(problem['loc'][0], problem['loc'][0])}: {problem['msg']} (got {problem['input']!r})"
        for problem in error.errors()
    )


class WindowPrinter(WindowRecorder):
    """Keeps the history and, if asked, prints a line per window, headed by what is trained."""

    def __init__(self, verbose: bool, trained: str = "") -> None:
        super().__init__()
        self.verbose, self.trained = verbose, trained

    def window(self, record: dict[str, Any]) -> None:
        """Keep and print one window."""
        super().window(record)
        if self.verbose:
            ritz_sum = f"  Ritz sum {record['ritz_sum']:.5f}" if "ritz_sum" in record else ""
            print(f"{self.trained} step {record['step']:>6}  loss {record['loss']:.4f}{ritz_sum}")

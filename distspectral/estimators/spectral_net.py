"""SpectralNet with scikit-learn's interface: arrays in memory, one process, no Ray.

The recipe is that of a run, and the graph, training, calibration and clustering are the functions that its stages call.
Shape letters: N rows, D features, P components, C clusters, M leaves.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import ClusterMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import ClassifierTags, Tags
from sklearn.utils.validation import check_is_fitted

from distspectral.embedding.forward import BLOCK_ROWS, in_blocks
from distspectral.errors import ConfigError, TooFewRowsError
from distspectral.estimators.base import NetworkEstimator, WindowPrinter, told_in
from distspectral.estimators.plot import PlotMixin
from distspectral.estimators.representation import represent_rows
from distspectral.estimators.stored import plain
from distspectral.graph.certified import certified
from distspectral.graph.config import AffinitySpace, Connect, Metric
from distspectral.graph.search.duplicates import surplus_duplicates
from distspectral.graph.search.faiss_search import select_search
from distspectral.graph.store import Graph
from distspectral.models.assigner import Assigner
from distspectral.models.embedder import Embedder
from distspectral.models.encoded import EncodedNetwork
from distspectral.models.networks import torch_device
from distspectral.recipes import Representation, SpectralRecipe
from distspectral.spectral.affinity import AffinityKind
from distspectral.spectral.certificate import as_note
from distspectral.spectral.diagnostics import suggested_n_clusters
from distspectral.spectral.exemplars import first_of_each
from distspectral.spectral.tree import Tree, grown
from distspectral.stages.calibrate import calibrated, edge_sums
from distspectral.stages.certify import RowSample, can_polish
from distspectral.stages.cluster import fit_assigner
from distspectral.stages.tree import Placed, leaf_affinities, placed, quality, symmetric, with_leaves
from distspectral.storage.rows.vectors import ArrayVectors, Vectors
from distspectral.training.modes import plain_torch

DEFAULTS = SpectralRecipe(dim=1)
"""A run's own, which the estimator shares."""


class SpectralNet(PlotMixin, ClusterMixin, NetworkEstimator):  # type: ignore[misc]
    """Spectral embedding and clustering by a neural network that also embeds rows it has not seen.

    A network is trained so that its outputs span the lowest eigenvectors of the Laplacian of the data's
    nearest-neighbour graph; an exact pass over all edges then rotates them into eigenvectors, in eigenvalue
    order, and k-means on them gives the clusters. ``predict`` never refits.

    Args:
        n_clusters: C, or ``auto``: the first of ``candidates_``; of fewer than 200 rows, at the largest relative gap
            of the eigenvalues.
        representation: what neighbours are searched in: ``input``, ``code`` (of an autoencoder), ``pca`` (the first 50
            principal components), or ``auto``: codes where they keep at least 70% of the variance of rows that the
            autoencoder never saw, there are 10,000 rows, and rows have at most 32,768 features.
        affinity_space: whose distances weigh the edges: ``euclidean``; ``siamese``, a network trained on the graph's
            edges; or ``auto``: siamese, unless clusters by these weights are more uneven, for they then fragment it.
        n_components: P, eigenfunctions kept, the constant one included, which alone tells nothing apart; None chooses
            from ``n_clusters``.
        n_neighbors: neighbours of each row in the graph; at most N - 1 are used,
            half as many where ``affinity`` does not fall with distance.
        metric: what is near: ``l2``, ``cosine``, ``centered_cosine`` (between rows around the mean of all),
            ``inner_product``, or ``auto``: centred cosine where hubs rule the Euclidean neighbours of a sample, else
            ``l2``.
        connect: ``nearest`` links the graph's components to their nearest others until one is left; ``none``.
        affinity: ``self_tuning``, ``fuzzy``, ``gaussian``, ``uniform`` or ``shared_neighbors``.
        laplacian: ``random_walk`` weighs rows by degree, ``unnormalized`` alike.
        hidden: units of each hidden layer; a number alone is one layer.
        batch_size: edges per step; up to four times as many while the rate falls, should small batches hide too
            much of the graph.
        max_steps: budget of steps of every training, which ends earlier on a plateau; ``auto``: grows with the root of
            the rows, up to 2,000 of the autoencoder, 1,500 of the Siamese network and 2,000 of the eigenfunctions.
        device: ``auto``, ``cpu`` or ``cuda``, for search and training.
        random_state: seed, None or a RandomState; the same seed gives the same result on one machine with one number
            of threads. Sums are rounded in another order with another number; ``OMP_NUM_THREADS`` fixes it.
        verbose: print a line per window of steps.

    Attributes:
        eigenvalues_: (P,) float64 Ritz values of the kept functions, ascending; the first is 0. Those of the
            unnormalised Laplacian are divided by the mean degree.
        embedding_: (N, P) float32 eigenfunctions at the training rows, the constant 1 first, orthonormal under
            the Laplacian's row weights.
        labels_: (N,) int32 clusters of the training rows.
        leaves_: (N,) int32 leaf of each training row: small clusters inside the clusters, which the tree merges.
        tree_: (M - 1, 4) float64 mergers of the leaves, a linkage matrix such as SciPy's dendrogram draws: first those
            inside a cluster, then the clusters, what no edge joins last; see :meth:`cut`.
        cluster_table_: facts of the clusters by name, (C,) each: ``rows``, ``share``; ``conductance``, the share of
            affinity that leads out; the ``nearest`` other cluster, -1 where there is none, and the ``affinity`` to it,
            1 being what chance gives; mean ``silhouette``, 0 half-way to another cluster and 1 at the centroid.
        cluster_centers_: (C, P) float32, in the coordinates clusters are sought in: functions scaled by
            diffusion time, rows scaled to length 1 unless clusters without that cut far less of the graph.
        n_clusters_: C; fewer than ``n_clusters`` where rows or functions tell fewer apart, of which a
            ``ConvergenceWarning`` tells.
        candidates_: of ``auto``, the first three numbers of clusters as dicts, the taken one first: ``n_clusters``; its
            ``score``, which below .15 says that none stands out; of that ``rise``, by how much a merger costs more
            once there are so few clusters, and a tenth of ``gap``, the relative gap of the eigenvalues.
        n_features_in_: D.
        certificate_: how wrong the functions are at most, as
            :meth:`distspectral.spectral.certificate.Certificate.facts` tells it: ``mean_sin2`` and ``sin2`` of each
            against the exact ones, ``verdict`` (good, mixed, bad, unproven), ``words``. A ``ConvergenceWarning``
            tells where it is one of the last two.
        history_: one dict of metrics per window of training steps.
        frame_: what was taken away from the rows, in float64, before they were cast to float32.
        graph_: facts of the graph: components, share of the largest, degrees; of how many rows one is a neighbour at
            most, the skewness of that, the share that is nobody's (``orphans``); ``metric`` and, if a trial chose it,
            what was found (``hubs``); ``explained_variance`` of codes; ``fragmentation``, what decided whose distances
            weigh the edges.
        model_: torch module, (B, D) to embedding, cluster and distance.

    Examples:
        >>> from distspectral import SpectralNet
        >>> from distspectral.datasets import two_moons
        >>> X, y = two_moons(2000, noise=0.06, seed=0)
        >>> labels = SpectralNet(n_clusters=2, random_state=0).fit_predict(X)

    Reference: Shaham et al., SpectralNet: Spectral Clustering using Deep Neural Networks, ICLR 2018.
    """

    WORDS: ClassVar = {
        "cluster.n_clusters": "n_clusters",
        "affinity.space": "affinity_space",
        "spectral.n_components": "n_components",
        "graph.n_neighbors": "n_neighbors",
        "graph.metric": "metric",
        "graph.connect": "connect",
        "affinity.kind": "affinity",
        "spectral.laplacian": "laplacian",
        "network.hidden": "hidden",
        "train.batch_size": "batch_size",
        **{f"{training}.max_steps": "max_steps" for training in ("autoencoder", "siamese", "train")},
        **{f"{section}.device": "device" for section in ("graph", "autoencoder", "siamese", "train")},
        "data.path": "X",
        "seed": "random_state",
        "representation": "representation",
    }

    def __init__(
        self,
        n_clusters: int | Literal["auto"] = 8,
        *,
        representation: Representation = DEFAULTS.representation,
        affinity_space: AffinitySpace = DEFAULTS.affinity.space,
        n_components: int | None = DEFAULTS.spectral.n_components,
        n_neighbors: int = DEFAULTS.graph.n_neighbors,
        metric: Metric = DEFAULTS.graph.metric,
        connect: Connect = DEFAULTS.graph.connect,
        affinity: AffinityKind = DEFAULTS.affinity.kind,
        laplacian: Literal["random_walk", "unnormalized"] = DEFAULTS.spectral.laplacian,
        hidden: int | Sequence[int] = DEFAULTS.network.hidden,
        batch_size: int = DEFAULTS.train.batch_size,
        max_steps: int | Literal["auto"] = DEFAULTS.train.max_steps,
        device: Literal["auto", "cpu", "cuda"] = "auto",
        random_state: int | np.random.RandomState | None = None,
        verbose: bool | int = False,
    ) -> None:
        self.n_clusters = n_clusters
        self.representation = representation
        self.affinity_space = affinity_space
        self.n_components = n_components
        self.n_neighbors = n_neighbors
        self.metric = metric
        self.connect = connect
        self.affinity = affinity
        self.laplacian = laplacian
        self.hidden = hidden
        self.batch_size = batch_size
        self.max_steps = max_steps
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    @plain_torch()
    def fit(self, X: ArrayLike, y: Any = None) -> Self:
        """Learn the embedding and the clusters of ``X``.

        Args:
            X: (N, D) numbers, finite, N at least 3, dense or SciPy sparse; computed with in float32. Before the cast,
                features whose offset float32 would lose are centred, and rows beyond its squares are scaled; sparse
                rows are scaled only. Where at most one entry in 16 is held, the search and the first layer multiply
                sparse rows, and no row is made dense but for codes.
            y: ignored.

        Raises:
            ConstantDataError, TooFewRowsError, TooManyClustersError, ConfigError: ValueErrors that say what to change.
            MissingDependencyError: FAISS is not installed.
        """
        rows = self._rows(X, reset=True, accept_sparse="csr", ensure_min_samples=3)
        with told_in(self.WORDS):
            n_distinct = surplus_duplicates(rows, n_kept=1)[1]
            self._learn(rows, self.recipe(rows.dim, rows.n_rows, n_distinct), n_distinct)
        return self

    def _learn(self, rows: Vectors, recipe: SpectralRecipe, n_distinct: int) -> None:
        """Learn by a recipe, as a run does stage by stage."""
        select_search(recipe.graph.device)  # refuses a device that is not there
        recipe.check(rows.n_rows, has_labels=False)
        if recipe.n_components > n_distinct:
            raise TooFewRowsError(
                f"spectral.n_components: is {recipe.n_components}, but data.path holds {n_distinct} different rows, "
                "which carry no more functions; ask for fewer",
                ["spectral.n_components", "data.path"],
            )
        represented = represent_rows(rows, recipe, self._observer)
        self.graph_ = represented.facts

        settings = recipe.functions
        trainer = settings.trainer(represented.seen, represented.graph)
        observer = self._observer("train")
        trainer.fit(observer)
        self.history_ = observer.history

        functions = ArrayVectors(in_blocks(trainer.model.network, represented.seen))
        laplacian, n_functions = settings.spectral.laplacian, functions.dim
        polishes = can_polish(rows.n_rows, n_functions, represented.graph.n_neighbors)
        sample = None if polishes else RowSample.drawn(rows.n_rows, n_functions, recipe.seed)
        sums = edge_sums(functions, represented.graph, 0, rows.n_rows, laplacian, sample)
        perceptron, ritz_values = calibrated(trainer.model.network.cpu(), *sums, rows.n_rows, settings)
        if sample is None:
            n_kept = min(settings.n_components, len(ritz_values))
            certificate = certified(functions.block(0, rows.n_rows), represented.graph, n_kept, laplacian)
        else:
            certificate = sample.certificate(*sums, rows.n_rows, settings)
        self.certificate_ = certificate.facts()
        if certificate.verdict in ("bad", "unproven"):
            ended = trainer.schedule.ended_because(trainer.objective.watched)
            note = as_note(self.certificate_, trainer.step, ended, self.WORDS)
            warnings.warn(note, ConvergenceWarning, stacklevel=5)
        network = EncodedNetwork(perceptron, **represented.encoders)
        self.eigenvalues_ = ritz_values[: settings.n_components]
        self.embedding_ = in_blocks(network.to(torch_device(self.device)), rows)
        assigner, facts = fit_assigner(
            self.embedding_.__getitem__,
            represented.graph,
            self.eigenvalues_,
            recipe.cluster.n_clusters,
            recipe.cluster,
            recipe.seed,
            in_parts=self.graph_["components"] > 1,
            suggested=suggested_n_clusters(ritz_values, settings.n_components, len(ritz_values) == n_distinct),
        )
        self.candidates_ = facts.get("candidates", [])
        self._set_model(Embedder(network, assigner))
        self.labels_ = self._clusters(self.embedding_)
        self._drop_empty_clusters(n_distinct)
        self._grow_tree(represented.graph, recipe)

    @plain_torch()
    def transform(self, X: ArrayLike) -> NDArray[np.float32]:
        """Return the eigenfunctions (B, P) at rows ``X`` (B, D), seen or unseen."""
        check_is_fitted(self)
        return self._embed(self._rows(X, reset=False, accept_sparse="csr"))

    @plain_torch()
    def predict(self, X: ArrayLike) -> NDArray[np.int32]:
        """Return the cluster (B,) of each row of ``X`` (B, D); one row alone gets the label it gets in company."""
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
        n_clusters = plain(n_clusters)
        if not isinstance(n_clusters, int) or isinstance(n_clusters, bool) or n_clusters < 1:
            raise ConfigError(f"n_clusters: expected an integer of at least 1 (got {n_clusters!r})")
        leaves = self.leaves_
        if X is not None:
            leaves = self._placed(self._embed(self._rows(X, reset=False, accept_sparse="csr"))).leaves
        return Tree(**self._tree).labels(n_clusters).astype(np.int32)[leaves]

    def exemplars(self, n_rows: int = 10) -> tuple[list[NDArray[np.int64]], list[NDArray[np.int64]]]:
        """Return row numbers of the most central and of the border rows of each cluster, ``n_rows`` each at most.

        Central rows are nearest to their centroid. Border rows have the least margin, by which the next centroid is
        farther; a cluster without others has none.

        Args:
            n_rows: of each kind.

        Returns:
            central: by cluster, of the rows fitted to, the nearest first.
            border: likewise, the least margin first.
        """
        check_is_fitted(self)
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
        """Fit and return ``embedding_``."""
        return self.fit(X, y, **fit_params).embedding_

    def recipe(self, dim: int, n_rows: int, n_distinct: int | None = None) -> SpectralRecipe:
        """Return what a run with these parameters consists of; few rows carry few neighbours and functions.

        Args:
            dim: D.
            n_rows: N.
            n_distinct: how many rows differ; None: all.

        Raises:
            ConfigError: a parameter is of another type or out of range.
        """
        budget = {"device": plain(self.device), "max_steps": plain(self.max_steps)}
        values = {
            "dim": dim,
            "n_rows": n_rows,
            "seed": self._seed(),
            "representation": plain(self.representation),
            "autoencoder": budget,
            "graph": {
                "n_neighbors": plain(self.n_neighbors),
                "metric": plain(self.metric),
                "connect": plain(self.connect),
                "device": plain(self.device),
            },
            "affinity": {"kind": plain(self.affinity), "space": plain(self.affinity_space)},
            "siamese": budget,
            "network": {"hidden": self._layers()},
            "spectral": {"n_components": plain(self.n_components), "laplacian": plain(self.laplacian)},
            "train": budget | {"batch_size": plain(self.batch_size)},
            "cluster": {"n_clusters": plain(self.n_clusters)},
        }
        return self._made(SpectralRecipe, values).for_rows(n_rows, n_distinct)

    def _observer(self, trained: str) -> WindowPrinter:
        return WindowPrinter(self.verbose, trained)

    def _model_state(self) -> dict[str, Any]:
        return {"network": self._model.network.state(), "assigner": self._model.assigner.state()}

    def _restore_model(self, state: dict[str, Any]) -> None:
        network = EncodedNetwork.from_state(state["network"])
        self._set_model(Embedder(network, Assigner.from_state(state["assigner"])))

    def _set_model(self, model: Any) -> None:
        super()._set_model(model)
        self.cluster_centers_ = model.assigner.centroids.numpy()
        self.n_clusters_ = len(self.cluster_centers_)

    def _drop_empty_clusters(self, n_distinct: int) -> None:
        """Keep the clusters that rows are in, numbered anew, and warn where they are fewer than asked for."""
        found, labels = np.unique(self.labels_, return_inverse=True)
        if len(found) == self.n_clusters_:
            return
        warnings.warn(
            f"n_clusters: {self.n_clusters_} clusters were asked for and {len(found)} were found. {n_distinct} of "
            f"{len(labels)} rows differ, and the n_components = {len(self.eigenvalues_)} functions kept, of which the "
            "first is constant, tell no more of them apart; ask for fewer clusters, or give more neighbours, functions "
            "or steps",
            ConvergenceWarning,
            stacklevel=5,
        )
        whole = self._model.assigner
        centroids = whole.centroids[torch.from_numpy(found).long()]
        assigner = Assigner(whole.scale, centroids, whole.normalize_rows, whole.variance)
        self._set_model(Embedder(self._model.network, assigner))
        self.labels_ = labels.astype(np.int32)

    def _grow_tree(self, graph: Graph, recipe: SpectralRecipe) -> None:
        """Part the clusters into leaves and merge these."""
        n_rows, generator = len(self.labels_), np.random.default_rng(recipe.seed)
        rows = np.sort(generator.choice(n_rows, min(recipe.cluster.sample_rows, n_rows), replace=False))
        sample = torch.from_numpy(self.embedding_[rows])
        assigner = with_leaves(self._model.assigner, sample, n_rows, recipe.seed)
        self._set_model(Embedder(self._model.network, assigner))
        found, n_leaves = self._placed(self.embedding_), len(assigner.leaves)
        affinities = symmetric(leaf_affinities(graph, found.leaves, n_leaves, 0, n_rows))
        counts, owners = np.bincount(found.leaves, minlength=n_leaves), assigner.owners.numpy()
        tree = grown(affinities, counts, owners)
        facts = quality(affinities, counts, owners, found.silhouettes)
        self.leaves_, self.tree_, self._tree = found.leaves, tree.linkage(), vars(tree)
        self.cluster_table_ = {name: np.array(column) for name, column in facts.items()}

    def _placed(self, embedding: NDArray[np.float32]) -> Placed:
        """Return the leaf (B,) of each embedded row (B, P), and summed silhouettes (M,)."""
        parts = [placed(self._model.assigner, part) for part in torch.split(torch.from_numpy(embedding), BLOCK_ROWS)]
        return Placed(
            np.concatenate([part.leaves for part in parts]), np.sum([part.silhouettes for part in parts], axis=0)
        )

    def _embed(self, rows: Vectors) -> NDArray[np.float32]:
        return in_blocks(self._model.network.to(torch_device(self.device)), rows)

    def _clusters(self, embedding: NDArray[np.float32]) -> NDArray[np.int32]:
        """Return the cluster (B,) of each embedded row (B, P)."""
        parts = torch.split(torch.from_numpy(embedding), BLOCK_ROWS)
        return torch.cat([self._model.assigner(part)[0] for part in parts]).numpy().astype(np.int32)

    @property
    def _n_features_out(self) -> int:
        """P, for ``get_feature_names_out``."""
        return len(self.eigenvalues_)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.classifier_tags = ClassifierTags()  # which scikit-learn's checks read of all that predict probabilities
        return tags

"""SpectralNet with scikit-learn's interface: arrays in memory, one process, no Ray.

The recipe is that of a run, and the graph, training, calibration and clustering are the functions that its stages call.
Shape letters: N rows, D features, P components, C clusters, M leaves.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.exceptions import ConvergenceWarning

from distspectral.clustering.diffusion import diffusion_scale, few_spread_in_words
from distspectral.clustering.fit import fit_assigner
from distspectral.embedding.forward import in_blocks
from distspectral.errors import TooFewRowsError
from distspectral.estimators.base import told_in, warn
from distspectral.estimators.eigenfunctions import eigenfunctions
from distspectral.estimators.fitted import FittedSpectral
from distspectral.estimators.given import given_lists, on_given
from distspectral.estimators.progress import Verbose
from distspectral.estimators.representation import Representation as Represented
from distspectral.estimators.representation import represent_rows
from distspectral.estimators.stored import plain
from distspectral.estimators.trainings import Trainings
from distspectral.estimators.tree import grow_tree
from distspectral.graph.components import component_labels
from distspectral.graph.config import AffinitySpace, Connect, Metric
from distspectral.graph.facts import pieces_in_words
from distspectral.graph.search.duplicates import surplus_duplicates
from distspectral.graph.search.faiss_search import select_search
from distspectral.graph.search.lists import Neighbors
from distspectral.graph.trial import Trial
from distspectral.models.assigner import Assigner
from distspectral.models.embedder import Embedder
from distspectral.models.encoded import EncodedNetwork
from distspectral.models.networks import torch_device
from distspectral.recipes import Representation, SpectralRecipe
from distspectral.spectral.affinity import AffinityKind
from distspectral.spectral.certificate import as_weighed
from distspectral.spectral.diagnostics import suggested_n_clusters
from distspectral.spectral.lineage import lineage
from distspectral.spectral.rayleigh import Laplacian
from distspectral.storage.rows.vectors import Vectors
from distspectral.training.modes import plain_torch
from distspectral.training.run_log import OnWindow

logger = logging.getLogger(__name__)

DEFAULTS = SpectralRecipe(dim=1)
"""A run's own, which the estimator shares."""
TRAINED = ("autoencoder", "siamese", "train", "distill", "map")
"""Stages of a run that train, which share the estimator's budget."""


class SpectralNet(FittedSpectral):
    """Spectral embedding and clustering by a neural network that also embeds rows it has not seen.

    A network is trained so that its outputs span the lowest eigenvectors of the Laplacian of the data's
    nearest-neighbour graph. Where the graph fits into memory, they are polished with it and the network learns what
    comes out; elsewhere an exact pass over all edges rotates them. The outputs are eigenvectors in eigenvalue order,
    and k-means on them gives the clusters. ``predict`` never refits.

    Args:
        n_clusters: C, or ``auto``: the first of ``candidates_``; of fewer than 200 rows, at the largest relative gap
            of the eigenvalues.
        representation: what neighbours are searched in: ``input``, ``code`` (of an autoencoder), ``pca`` (the first 50
            principal components), or ``auto``: components where a trial on sampled rows finds that neighbours among
            them tell clearly more of a row; else codes where they keep at least 70% of the variance of rows that the
            autoencoder never saw, there are 10,000 rows, and rows have at most 32,768 features; else ``input``.
        affinity_space: whose distances weigh the edges: ``euclidean``; ``siamese``, a network trained on the graph's
            edges; or ``auto``: siamese, unless clusters by these weights are more uneven, for they then fragment it.
        n_components: P, eigenfunctions kept, the constant one included, which alone tells nothing apart; None chooses
            from ``n_clusters``.
        n_neighbors: neighbours of each row in the graph; at most N - 1 are used,
            half as many where ``affinity`` does not fall with distance.
        metric: what is near: ``l2``, ``cosine``, ``centered_cosine`` (between rows around the mean of all),
            ``inner_product``, or ``auto``: ``l2``, or centred cosine where that trial finds that its neighbours tell
            clearly more.
        connect: ``nearest`` links the graph's components to their nearest others until one is left; ``none``.
        affinity: ``self_tuning``, ``fuzzy``, ``gaussian``, ``uniform``, ``shared_neighbors``, or ``precomputed``: those
            of the ``graph`` that ``fit`` is given.
        laplacian: ``random_walk`` weighs rows by degree, ``unnormalized`` alike.
        hidden: units of each hidden layer; a number alone is one layer.
        batch_size: edges per step; up to four times as many while the rate falls, should small batches hide too
            much of the graph.
        max_steps: budget of steps of every training, which ends earlier on a plateau; ``auto``: grows with the root of
            the rows, up to 600 of the eigenfunctions, 1,000 of their distillation, 1,200 of the map, 1,500 of the
            Siamese network and 2,000 of the autoencoder.
        include_constant: whether ``transform`` gives the constant function, too, which tells nothing apart.
        device: ``auto``, ``cpu`` or ``cuda``, for search and training.
        random_state: seed, None or a RandomState; the same seed gives the same result on one machine with one number
            of threads. Sums are rounded in another order with another number; ``OMP_NUM_THREADS`` fixes it.
        verbose: ``auto`` shows a progress bar of each training in a terminal, or in a notebook that has ``ipywidgets``,
            and nothing elsewhere; True prints a line per window of steps. The log warns of a graph in pieces or ruled
            by hubs. False: nothing of either; ``graph_`` tells it still.

    Attributes:
        eigenvalues_: (P,) float64 of the kept functions, ascending, of the polish or else Ritz values; the first is 0.
            Those of the unnormalised Laplacian are divided by the mean degree.
        embedding_: (N, P) float32 eigenfunctions at the training rows, the constant 1 first, orthonormal under
            the Laplacian's row weights.
        labels_: (N,) int32 clusters of the training rows.
        leaves_: (N,) int32 leaf of each training row: small clusters inside the clusters, which the tree merges.
        outliers_: (N,) bool, training rows that belong nowhere: farther than usual from their cluster's mean or their
            leaf.
        tree_: (M - 1, 4) float64 mergers of the leaves, a linkage matrix such as SciPy's dendrogram draws: first those
            inside a cluster, then the clusters, what no edge joins last; see :meth:`cut`.
        cluster_table_: facts of the clusters by name, (C,) each: ``rows``, ``share``; ``conductance``, the share of
            affinity that leads out; the ``pieces`` that edges join it into; the ``nearest`` other cluster, -1 where
            there is none, and the ``affinity`` to it, 1 being what chance gives; mean ``silhouette``, 0 half-way to
            another cluster and 1 at the centroid; the share of ``outliers``; ``stability``, how well it is found again
            in half of the rows, from 0 to 1.
        cluster_centers_: (C, P) float32, in the coordinates clusters are sought in: functions scaled by
            diffusion time, rows scaled to length 1 unless clusters without that cut far less of the graph.
        n_clusters_: C; fewer than ``n_clusters`` where rows or functions tell fewer apart, of which a
            ``ConvergenceWarning`` tells.
        candidates_: of ``auto``, the first three numbers of clusters as dicts, the taken one first: ``n_clusters``; its
            ``score``, which below .18 says that none stands out, as does a ``stability`` below .85; of that score
            ``rise``, by how much a merger costs more once there are so few clusters, and a tenth of ``gap``, the
            relative gap of the eigenvalues.
        n_features_in_: D.
        certificate_: how wrong the functions are at most, as
            :meth:`distspectral.spectral.certificate.Certificate.facts` tells it: ``mean_sin2`` and ``sin2`` of each
            against the exact ones, ``verdict`` (good, mixed, bad, unproven), ``words``. A ``ConvergenceWarning``
            tells where it is one of the last two.
        history_: one dict of metrics per window of training steps.
        frame_: what was taken away from the rows, in float64, before they were cast to float32.
        graph_: facts of the graph: components, share of the largest, degrees; of how many rows one is a neighbour at
            most, the skewness of that, the share that is nobody's (``orphans``); ``metric`` and, where it was open,
            the ``trial``; ``explained_variance`` of codes; ``fragmentation``, what decided whose distances weigh the
            edges.
        map_: see :meth:`map`.
        model_: torch module, (B, D) to embedding, cluster, distance, leaf, and whether it is an outlier.

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
        "graph.path": "graph",
        "graph.connect": "connect",
        "affinity.kind": "affinity",
        "spectral.laplacian": "laplacian",
        "network.hidden": "hidden",
        "train.batch_size": "batch_size",
        **{f"{training}.max_steps": "max_steps" for training in TRAINED},
        **{f"{section}.device": "device" for section in ("graph", *TRAINED)},
        "data.path": "X",
        "seed": "random_state",
        "representation": "representation",
    }

    def __init__(
        self,
        n_clusters: int | Literal["auto"] = DEFAULTS.cluster.n_clusters,
        *,
        representation: Representation = DEFAULTS.representation,
        affinity_space: AffinitySpace = DEFAULTS.affinity.space,
        n_components: int | None = DEFAULTS.spectral.n_components,
        n_neighbors: int = DEFAULTS.graph.n_neighbors,
        metric: Metric = DEFAULTS.graph.metric,
        connect: Connect = DEFAULTS.graph.connect,
        affinity: AffinityKind = DEFAULTS.affinity.kind,
        laplacian: Laplacian = DEFAULTS.spectral.laplacian,
        hidden: int | Sequence[int] = DEFAULTS.network.hidden,
        batch_size: int = DEFAULTS.train.batch_size,
        max_steps: int | Literal["auto"] = DEFAULTS.train.max_steps,
        include_constant: bool = False,
        device: Literal["auto", "cpu", "cuda"] = "auto",
        random_state: int | np.random.RandomState | None = None,
        verbose: Verbose = "auto",
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
        self.include_constant = include_constant
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    @plain_torch()
    def fit(self, X: ArrayLike, y: Any = None, *, on_window: OnWindow | None = None, graph: Any = None) -> Self:
        """Learn the embedding and the clusters of ``X``.

        Args:
            X: (N, D) numbers, finite, N at least 3, dense or SciPy sparse; computed with in float32. Before the cast,
                features whose offset float32 would lose are centred, and rows beyond its squares are scaled; sparse
                rows are scaled only. Where at most one entry in 16 is held, the search and the first layer multiply
                sparse rows, and no row is made dense but for codes.
            y: ignored.
            on_window: called with each window's metrics, as ``history_`` has them, and ``training``: ``autoencoder``,
                ``siamese``, ``train`` or ``distill``.
            graph: (N, N) SciPy sparse matrix to learn on in place of a search, such as ``obsp["connectivities"]``:
                affinities where ``affinity`` is ``precomputed``, else distances.

        Raises:
            ConstantDataError, TooFewRowsError, TooManyClustersError, ConfigError: ValueErrors that say what to change.
            MissingDependencyError: FAISS is not installed.

        Where it fails or is interrupted, the estimator stays as it was.
        """
        anew = self._learning()
        rows = anew._rows(X, reset=True, accept_sparse="csr", ensure_min_samples=3)
        with told_in(self.WORDS):
            anew._learn(rows, Trainings(self.verbose, on_window), given_lists(graph, rows.n_rows, self.affinity))
        self._become(anew)
        return self

    @plain_torch()
    def partial_refit(
        self, X: ArrayLike, y: Any = None, *, on_window: OnWindow | None = None, graph: Any = None
    ) -> Self:
        """Learn anew from all rows, those of before and more, beginning with the weights learned so far.

        Graph, calibration, clusters and tree are made anew. Clusters that hold the same rows keep their numbers, as
        far as the model before tells the rows apart. Where it fails, the estimator stays as it was.

        Args:
            X: (N, D) all rows, with the features of before; nothing of those is kept here.
            y: ignored.
            on_window: see :meth:`fit`.
            graph: of all rows, see :meth:`fit`.

        Raises:
            ConfigError: the weights do not fit: parameters were changed, or few rows carried fewer functions.
            ConstantDataError, TooFewRowsError, TooManyClustersError: see :meth:`fit`.
        """
        earlier, frame, anew = self.predict(X), self.frame_, self._learning()
        rows = anew._rows(X, reset=True, accept_sparse="csr", ensure_min_samples=3)
        moved = frame.properties() != anew.frame_.properties()
        with told_in(self.WORDS):
            lists = given_lists(graph, rows.n_rows, self.affinity)
            trial = Trial.of(told) if (told := self.graph_.get("trial")) else None
            anew._learn(rows, Trainings(self.verbose, on_window, self._weights, moved, trial), lists, earlier)
        self._become(anew)
        return self

    def _learn(
        self,
        rows: Vectors,
        trainings: Trainings,
        lists: Neighbors | None = None,
        earlier: NDArray[np.int32] | None = None,
    ) -> None:
        """Learn as a run does, stage by stage.

        Args:
            rows: (N, D).
            trainings: of this fit.
            lists: neighbours that were found elsewhere; None searches.
            earlier: (N,) clusters that the model before gives, by which the new ones are numbered.
        """
        n_distinct = surplus_duplicates(rows, n_kept=1)[1]
        recipe = on_given(self.recipe(rows.dim, rows.n_rows, n_distinct), lists)
        select_search(recipe.graph.device)  # refuses a device that is not there
        recipe.check(rows.n_rows, has_labels=False)
        if recipe.n_components > n_distinct:
            raise TooFewRowsError(
                f"spectral.n_components: is {recipe.n_components}, but data.path holds {n_distinct} different rows, "
                "which carry no more functions; ask for fewer",
                ["spectral.n_components", "data.path"],
            )
        represented = represent_rows(rows, recipe, trainings, lists)
        self.graph_ = represented.facts

        learned = eigenfunctions(represented, recipe, trainings)
        self.history_, self._weights = trainings.histories["train"], trainings.weights
        self.eigenvalues_ = learned.eigenvalues
        network = EncodedNetwork(learned.network, **represented.encoders)
        self.embedding_ = in_blocks(network.to(torch_device(self.device)), rows)
        assigner, facts = fit_assigner(
            self.embedding_.__getitem__,
            represented.graph,
            self.eigenvalues_,
            recipe.cluster.n_clusters,
            recipe.cluster,
            recipe.seed,
            components=component_labels(represented.graph).__getitem__ if self.graph_["components"] > 1 else None,
            suggested=suggested_n_clusters(learned.spectrum, recipe.n_components, len(learned.spectrum) == n_distinct),
        )
        n_clusters = facts["n_clusters"]
        scale = diffusion_scale(self.eigenvalues_, recipe.cluster.diffusion_time, facts["n_counted"])
        self.certificate_ = as_weighed(learned.certificate.facts(), scale)
        asked = None if recipe.cluster.n_clusters == "auto" else n_clusters
        if (note := learned.note(self.certificate_, self.WORDS, asked)) is not None:
            warn(note, ConvergenceWarning)
        if not trainings.is_silent:
            few = few_spread_in_words(facts["n_spread"], facts["n_components"], n_clusters)
            for words in filter(None, (pieces_in_words(self.graph_, facts), few)):
                for name in ("graph.n_neighbors", "graph.connect", "spectral.n_components"):
                    words = words.replace(name, self.WORDS[name])
                logger.warning("%s", words)
        self.candidates_ = facts.get("candidates", [])
        self._set_model(Embedder(network, assigner))
        self.labels_ = self._clusters(self.embedding_)
        self._drop_empty_clusters(n_distinct)
        if earlier is not None:
            self._renumber(earlier)
        self._grow_tree(represented, recipe)
        self._can_draw(represented.seen, represented.graph, recipe)

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
            "distill": budget,
            "map": budget,
        }
        return self._made(SpectralRecipe, values).for_rows(n_rows, n_distinct)

    def _drop_empty_clusters(self, n_distinct: int) -> None:
        """Keep the clusters that rows are in, numbered anew, and warn where they are fewer than asked for."""
        found, labels = np.unique(self.labels_, return_inverse=True)
        if len(found) == self.n_clusters_:
            return
        warn(
            f"n_clusters: {self.n_clusters_} clusters were asked for and {len(found)} were found. {n_distinct} of "
            f"{len(labels)} rows differ, and the n_components = {len(self.eigenvalues_)} functions kept, of which the "
            "first is constant, tell no more of them apart; ask for fewer clusters, or give more neighbours, functions "
            "or steps",
            ConvergenceWarning,
        )
        whole = self._model.assigner
        centroids = whole.centroids[torch.from_numpy(found).long()]
        assigner = Assigner(whole.scale, centroids, whole.normalize_rows, whole.variance)
        self._set_model(Embedder(self._model.network, assigner))
        self.labels_ = labels.astype(np.int32)

    def _renumber(self, earlier: NDArray[np.int32]) -> None:
        """Give clusters the numbers (N,) of earlier ones that hold the same rows."""
        before, now = earlier.astype(np.int64), self.labels_.astype(np.int64)
        numbers = lineage(before, now, int(before.max()) + 1, self.n_clusters_).numbers
        whole, order = self._model.assigner, torch.from_numpy(np.argsort(numbers))
        assigner = Assigner.from_state(whole.state() | {"centroids": whole.centroids[order]})
        self._set_model(Embedder(self._model.network, assigner))
        self.labels_ = numbers[now].astype(np.int32)

    def _grow_tree(self, represented: Represented, recipe: SpectralRecipe) -> None:
        """Part the clusters into leaves and merge these; find rows that belong nowhere."""
        found = grow_tree(self.embedding_, self._model.assigner, represented, recipe)
        self._set_model(Embedder(self._model.network, found.assigner, outliers=found.outliers))
        self.leaves_, self.tree_, self._tree = found.leaves, found.tree.linkage(), vars(found.tree)
        self.outliers_, self.cluster_table_ = found.are_outliers, found.table

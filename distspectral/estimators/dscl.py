"""DSCL with scikit-learn's interface: a metric learned from labels, in memory, one process, no Ray.

The batches, the loss, the trainer and the network are those of ``distspectral run`` with objective ``dscl``.
Shape letters: N rows, B rows of a block, D features, P components.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import Tags
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from distspectral.embedding.forward import in_blocks
from distspectral.errors import TooFewClassesError
from distspectral.estimators.base import (
    NetworkEstimator,
    framed,
    refuse_equal,
    refuse_no_features,
    told_in,
    warn_of_dominant,
    warn_of_far,
)
from distspectral.estimators.inputs import as_rows
from distspectral.estimators.progress import Verbose, fit_shown
from distspectral.estimators.stored import plain
from distspectral.models.networks import torch_device
from distspectral.recipes import MetricRecipe
from distspectral.storage.rows.frame import Frame
from distspectral.training.dscl import build_model
from distspectral.training.modes import plain_torch
from distspectral.training.run_log import OnWindow

DEFAULTS = MetricRecipe(dim=1)
"""A run's own, which the estimator shares."""

TRAIN = ("batch_size", "max_steps", "learning_rate", "device")
"""Parameters of the section ``train``."""


class DSCL(NetworkEstimator):
    """Supervised metric learning whose similarity groups rows of classes that were never seen.

    A network is trained so that its outputs on every class-balanced batch span the indicators of the batch's
    classes. Compare embedded rows by the cosine: rows of one class, also of a new one, point alike. Learned from few
    classes, it may tell new ones apart worse than the rows as they are: hold a labelled class out and compare.

    Args:
        n_components: P, width of the embedding, fewer than a batch has rows; None = as many as classes in a batch.
        hidden: units of each hidden layer; a number alone is one layer.
        trunk: ``module:callable`` that makes another torch module, called as trunk(D, P, **trunk_options).
        trunk_options: keyword arguments of the trunk.
        batch_size: rows per step.
        rows_per_class: rows of each class in a batch, as far as a class has them.
        loss: ``projector``, the paper's, or ``softmax``, which asks each row for its class among the batch's.
        max_steps: budget of steps; training ends earlier on a plateau.
        learning_rate: of Adam, between warm-up and cool-down.
        device: ``auto``, ``cpu`` or ``cuda``.
        random_state: seed, None or a RandomState; the same seed gives the same result on one machine with one number
            of threads. Sums are rounded in another order with another number; ``OMP_NUM_THREADS`` fixes it.
        verbose: ``auto`` shows a progress bar of each training in a terminal, or in a notebook that has ``ipywidgets``,
            and nothing elsewhere; True prints a line per window of steps, False nothing.

    Attributes:
        classes_: (C,) labels learned from, sorted.
        n_components_: P.
        n_features_in_: D.
        frame_: what was taken away from the rows, in float64, before they were cast to float32.
        history_: one dict of metrics per window of training steps.
        model_: torch module, (B, D) to (B, P).

    Examples:
        >>> from distspectral import DSCL
        >>> from sklearn.datasets import load_digits
        >>> X, y = load_digits(return_X_y=True)
        >>> embedding = DSCL(n_components=8, random_state=0).fit(X[y < 7], y[y < 7]).transform(X[y >= 7])

    Reference: Law, Urtasun, Zemel, Deep Spectral Clustering Learning, ICML 2017.
    """

    WORDS: ClassVar = {
        "dscl.n_components": "n_components",
        "network.hidden": "hidden",
        "network.trunk": "trunk",
        "network.trunk_options": "trunk_options",
        "dscl.rows_per_class": "rows_per_class",
        "dscl.loss": "loss",
        **{f"train.{name}": name for name in TRAIN},
        "data.label_column": "y",
        "data.path": "X",
        "seed": "random_state",
    }

    def __init__(
        self,
        n_components: int | None = None,
        *,
        hidden: int | Sequence[int] = DEFAULTS.network.hidden,
        trunk: str | None = DEFAULTS.network.trunk,
        trunk_options: dict[str, Any] | None = None,
        batch_size: int = DEFAULTS.train.batch_size,
        rows_per_class: int = DEFAULTS.dscl.rows_per_class,
        loss: Literal["projector", "softmax"] = DEFAULTS.dscl.loss,
        max_steps: int | Literal["auto"] = DEFAULTS.train.max_steps,
        learning_rate: float = DEFAULTS.train.learning_rate,
        device: Literal["auto", "cpu", "cuda"] = "auto",
        random_state: int | np.random.RandomState | None = None,
        verbose: Verbose = "auto",
    ) -> None:
        self.n_components = n_components
        self.hidden = hidden
        self.trunk = trunk
        self.trunk_options = trunk_options
        self.batch_size = batch_size
        self.rows_per_class = rows_per_class
        self.loss = loss
        self.max_steps = max_steps
        self.learning_rate = learning_rate
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    @plain_torch()
    def fit(self, X: ArrayLike, y: ArrayLike, *, on_window: OnWindow | None = None) -> Self:
        """Learn the metric from labelled rows.

        Args:
            X: (N, D) numbers, finite; computed with in float32. Before the cast, features whose offset float32 would
                lose are centred, and rows beyond its squares are scaled.
            y: (N,) labels, integers or strings, of at least two classes.
            on_window: called with each window's metrics, as ``history_`` has them, and ``training``.

        Raises:
            TooFewClassesError, ConstantDataError, ConfigError: all of them ValueErrors that say what to change.

        Where it fails or is interrupted, the estimator stays as it was.
        """
        anew = self._learning()
        anew._learn(X, y, on_window)
        self._become(anew)
        return self

    def _learn(self, X: ArrayLike, y: ArrayLike, on_window: OnWindow | None) -> None:
        refuse_no_features(X)
        X, y = validate_data(self, as_rows(X), y, order="C")
        refuse_no_pair(y)
        check_classification_targets(y)
        self.classes_, classes = np.unique(y, return_inverse=True)
        self.frame_ = Frame.of(np.asarray(X))
        rows = framed(np.asarray(X), self.frame_, classes)
        refuse_equal(rows)
        warn_of_far(rows, self.frame_)
        warn_of_dominant(rows, getattr(self, "feature_names_in_", None))
        with told_in(self.WORDS):
            recipe = self.recipe(rows.dim, self.n_components)
            self.n_components_ = recipe.metric.width(classes)
            trainer = recipe.metric.trainer(rows)
            self.history_ = fit_shown(trainer, "train", self.verbose, on_window)
        self._network = recipe.network.model_dump()
        self._set_model(trainer.model.network)

    @plain_torch()
    def transform(self, X: ArrayLike) -> NDArray[np.float32]:
        """Return the embedding (B, P) of rows ``X`` (B, D), of classes seen or unseen; compare it by the cosine."""
        check_is_fitted(self)
        return in_blocks(self._model.to(torch_device(self.device)), self._rows(X, reset=False))

    def _model_state(self) -> dict[str, Any]:
        return dict(self._model.state_dict())

    def _restore_model(self, state: dict[str, Any]) -> None:
        with told_in(self.WORDS):
            recipe = self.recipe(self.n_features_in_, self.n_components_)
        # parameters may have been set anew since
        recipe = recipe.model_copy(update={"network": type(recipe.network).model_validate(self._network)})
        model = build_model(self.n_features_in_, recipe.metric, self.n_components_).network
        model.load_state_dict(state)
        self._set_model(model)

    def recipe(self, dim: int, n_components: int | None) -> MetricRecipe:
        """Return what a run with these parameters consists of; every class of ``y`` is learned from.

        Args:
            dim: D.
            n_components: P; None: as many as classes in a batch.

        Raises:
            ConfigError: a parameter is out of range.
        """
        options = {} if self.trunk_options is None else self.trunk_options
        values = {
            "dim": dim,
            "seed": self._seed(),
            "network": {"hidden": self._layers(), "trunk": plain(self.trunk), "trunk_options": options},
            "dscl": {
                "n_components": None if n_components is None else plain(n_components),
                "rows_per_class": plain(self.rows_per_class),
                "loss": plain(self.loss),
                "train_classes": "all",
            },
            "train": {**MetricRecipe.budget, **{name: plain(getattr(self, name)) for name in TRAIN}},
        }
        return self._made(MetricRecipe, values)

    @property
    def _n_features_out(self) -> int:
        """P, for ``get_feature_names_out``."""
        return int(self.n_components_)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        return tags


def refuse_no_pair(y: Any) -> None:
    """Refuse labels (N,) by which no two rows are alike.

    Raises:
        TooFewClassesError: just that.
    """
    if len(y) > 1 and len(np.unique(y)) == len(y):
        raise TooFewClassesError(
            f"y: no two of {len(y)} rows have one label, so nothing tells which rows are alike; give classes, not ids"
        )

"""DSCL with scikit-learn's interface: a metric learned from labels, in memory, one process, no Ray.

The batches, the loss, the trainer and the network are those of ``distspectral run`` with objective ``dscl``.
Shape letters: N rows, B rows of a block, D features, P components.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import ValidationError
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import Tags, check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from distspectral.embedding.forward import in_blocks
from distspectral.errors import ConfigError
from distspectral.estimators.spectral_net import WindowPrinter, problems
from distspectral.models.networks import NetworkConfig, torch_device
from distspectral.objectives.dscl import DSCLConfig
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.rows.vectors import ArrayVectors
from distspectral.training.checkpoint import read_state, write_state
from distspectral.training.config import TrainConfig
from distspectral.training.dscl import DSCLSettings, build_model


class DSCL(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Supervised metric learning whose similarity groups rows of classes that were never seen.

    A network is trained so that its outputs on every class-balanced batch span the indicators of the batch's
    classes. Compare embedded rows by the cosine: rows of one class, also of a new one, point alike.

    Args:
        n_components: P, width of the embedding, fewer than a batch has rows; None = as many as classes in a batch.
        hidden: units of each hidden layer.
        trunk: ``module:callable`` that makes another torch module, called as trunk(D, P, **trunk_options).
        trunk_options: keyword arguments of the trunk.
        batch_size: rows per step.
        rows_per_class: rows of each class in a batch, as far as a class has them.
        max_steps: budget of steps; training ends earlier on a plateau.
        learning_rate: of Adam, between warm-up and cool-down.
        device: ``auto``, ``cpu`` or ``cuda``.
        random_state: seed, None or a RandomState; the same seed on the same machine gives the same result.
        verbose: print a line per window of steps.

    Attributes:
        classes_: (C,) labels learned from, sorted.
        n_components_: P.
        n_features_in_: D.
        history_: one dict of metrics per window of training steps.
        model_: torch module, (B, D) to (B, P).

    Example:
        >>> from distspectral import DSCL
        >>> from sklearn.datasets import load_digits
        >>> X, y = load_digits(return_X_y=True)
        >>> embedding = DSCL(n_components=8, random_state=0).fit(X[y < 7], y[y < 7]).transform(X[y >= 7])

    Reference: Law, Urtasun, Zemel, Deep Spectral Clustering Learning, ICML 2017.
    """

    def __init__(
        self,
        n_components: int | None = None,
        *,
        hidden: tuple[int, ...] = (512, 256),
        trunk: str | None = None,
        trunk_options: dict[str, Any] | None = None,
        batch_size: int = 512,
        rows_per_class: int = 8,
        max_steps: int = 1000,
        learning_rate: float = 3e-3,
        device: Literal["auto", "cpu", "cuda"] = "auto",
        random_state: int | np.random.RandomState | None = None,
        verbose: bool = False,
    ) -> None:
        self.n_components = n_components
        self.hidden = hidden
        self.trunk = trunk
        self.trunk_options = trunk_options
        self.batch_size = batch_size
        self.rows_per_class = rows_per_class
        self.max_steps = max_steps
        self.learning_rate = learning_rate
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Learn the metric from labelled rows.

        Args:
            X: (N, D) numbers, finite; computed with in float32.
            y: (N,) labels, integers or strings, of at least two classes.

        Raises:
            TooFewClassesError, ConfigError: both of them ValueErrors that say what to change.
        """
        X, y = validate_data(self, X, y, dtype=np.float32, order="C")
        check_classification_targets(y)
        self.classes_, classes = np.unique(y, return_inverse=True)
        try:
            self.n_components_ = self._width(classes)
            settings = self._settings()
        except ValidationError as error:
            raise ConfigError(problems(error)) from None
        trainer = settings.trainer(ArrayVectors(np.asarray(X), classes))
        observer = WindowPrinter(self.verbose)
        trainer.fit(observer)
        self.history_ = observer.history
        self.model_ = trainer.model.network.eval()
        return self

    def transform(self, X: ArrayLike) -> NDArray[np.float32]:
        """Return the embedding (B, P) of rows ``X`` (B, D), of classes seen or unseen; compare it by the cosine."""
        check_is_fitted(self)
        rows = ArrayVectors(validate_data(self, X, reset=False, dtype=np.float32, order="C"))
        return in_blocks(self.model_.to(torch_device(self.device)), rows)

    def save(self, path: str | Path) -> None:
        """Write the fitted estimator to one file, whole or not at all; it holds no pickled code."""
        check_is_fitted(self)
        path = Path(path).absolute()
        seed = self.random_state if isinstance(self.random_state, int) else None
        state = {
            "params": self.get_params(deep=False) | {"random_state": seed, "hidden": list(self.hidden)},
            "model": self.model_.state_dict(),
            "n_features_in": self.n_features_in_,
            "n_components": self.n_components_,
            "classes": self.classes_.tolist(),
            "history": self.history_,
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
        estimator.n_features_in_, estimator.n_components_ = state["n_features_in"], state["n_components"]
        estimator.classes_ = np.asarray(state["classes"])
        model = build_model(estimator.n_features_in_, estimator._settings()).network
        model.load_state_dict(state["model"])
        estimator.model_, estimator.history_ = model.eval(), state["history"]
        return estimator

    def _width(self, classes: NDArray[np.int64]) -> int:
        """Return P: as given, or the number of classes in a batch, as in the paper; few rows carry less."""
        if self.n_components is not None:
            return self.n_components
        sizes = np.sort(np.minimum(np.bincount(classes), self.rows_per_class))
        n_classes = max(min(self.batch_size // self.rows_per_class, len(sizes)), 1)
        return max(min(n_classes, int(sizes[:n_classes].sum()) // 2), 1)

    def _settings(self) -> DSCLSettings:
        return DSCLSettings(
            network=NetworkConfig(
                hidden=tuple(self.hidden), trunk=self.trunk, trunk_options=dict(self.trunk_options or {})
            ),
            dscl=DSCLConfig(n_components=self.n_components_, rows_per_class=self.rows_per_class, train_classes="all"),
            train=TrainConfig(
                batch_size=self.batch_size,
                max_steps=self.max_steps,
                learning_rate=self.learning_rate,
                device=self.device,
            ),
            seed=int(check_random_state(self.random_state).randint(2**31 - 1)),
        )

    @property
    def _n_features_out(self) -> int:
        """P, for ``get_feature_names_out``."""
        return int(self.n_components_)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags

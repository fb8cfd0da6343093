"""What the estimators share: rows of arrays, the user's words in errors, files."""

from __future__ import annotations

import contextlib
import sys
import warnings
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, Field, InstanceOf, NonNegativeInt, ValidationError
from scipy import sparse
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import Tags, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import nn

from distspectral.embedding.forward import BLOCK_ROWS
from distspectral.errors import (
    ArtifactError,
    ConfigError,
    ConstantDataError,
    DamagedArtifactError,
    DistSpectralError,
    MissingArtifactError,
    NonFiniteRowError,
    first_line,
)
from distspectral.estimators.inputs import as_rows
from distspectral.estimators.stored import plain, restored, stored
from distspectral.frozen import FrozenModel, expected
from distspectral.models.framed import Framed
from distspectral.models.state import read_state, write_state
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.rows.frame import Frame
from distspectral.storage.rows.moments import DominantFeature, is_constant
from distspectral.storage.rows.sparse import SparseVectors
from distspectral.storage.rows.vectors import ArrayVectors, Vectors
from distspectral.training.modes import plain_torch

ModelT = TypeVar("ModelT", bound=BaseModel)

WRAPPERS = ("distspectral", "sklearn", "joblib", "contextlib", "torch")
"""Packages whose lines are not the user's."""
FORMAT = 2
"""Of the files that estimators save; another number is another arrangement."""


class Conduct(FrozenModel):
    """Parameters that no recipe has."""

    random_state: Annotated[int, Field(ge=0, lt=2**32)] | InstanceOf[np.random.RandomState] | None
    verbose: bool | NonNegativeInt | Literal["auto"]
    include_constant: bool = False


APART = ("frame_", "model_", "_model", "_map_network", "_map_basis")
"""Attributes that files keep in a form of their own."""


class NetworkEstimator(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """An estimator that trains a network on arrays in memory, by the recipe that a run of its kind follows."""

    WORDS: ClassVar[Mapping[str, str]]
    """What the estimator calls a setting of a run, by the setting's key."""
    frame_: Frame
    """Where the rows learned from lie."""
    _model: Any
    """What was learned, a module that takes framed rows."""

    def fit_transform(self, X: ArrayLike, y: Any = None, **fit_params: Any) -> NDArray[np.float32]:
        """Fit and return the embedding of the training rows."""
        fitted = self.fit(X, y, **fit_params)
        embedding: NDArray[np.float32] = fitted.transform(X)
        return embedding

    def save(self, path: str | Path) -> None:
        """Write the fitted estimator to one file, whole or not at all; it holds no pickled code.

        Raises:
            ConfigError: a parameter is of a kind that such a file cannot hold.
        """
        check_is_fitted(self)
        path, params = Path(path).absolute(), self.get_params(deep=False)
        learned = {name: value for name, value in vars(self).items() if name not in {*params, *APART}}
        content = {
            "params": params,
            "attributes": learned,
            "frame": self.frame_.properties(),
            "model": self._model_state(),
        }
        header = {"estimator": type(self).__name__, "format": FORMAT}
        write_state(Artifact(str(path.parent)), path.name, header | {k: stored(v, k) for k, v in content.items()})

    @classmethod
    @plain_torch()
    def load(cls, path: str | Path) -> Self:
        """Return the estimator that :meth:`save` wrote; it gives the same numbers.

        Raises:
            MissingArtifactError: there is no such file.
            DamagedArtifactError: it cannot be read.
            ArtifactError: it holds another estimator, none at all, or one of another version.
        """
        path = Path(path).absolute()
        if not path.is_file():
            raise MissingArtifactError(f"{path}: there is no such file; give the one that save() wrote")
        try:
            state: Any = read_state(Artifact(str(path.parent)), path.name)
        except DamagedArtifactError as error:
            why = error.__cause__ or "it holds NaN or infinity"
            raise DamagedArtifactError(f"{path}: is no file of save(), or a damaged one ({why}); save again") from error
        found = state.get("estimator") if isinstance(state, dict) else None
        if found is None:
            raise ArtifactError(f"{path}: holds no estimator; {cls.__name__}.load reads what {cls.__name__}.save wrote")
        if found != cls.__name__:
            raise ArtifactError(f"{path}: holds a {found}, no {cls.__name__}; load it by {found}.load")
        if state["format"] != FORMAT:
            raise ArtifactError(
                f"{path}: is of format {state['format']}, this version of distspectral reads {FORMAT}; load it by the "
                "version that saved it, or fit again"
            )
        try:
            content = {name: restored(state[name]) for name in ("params", "attributes", "frame", "model")}
            estimator = cls(**content["params"])
            for name, value in content["attributes"].items():
                setattr(estimator, name, value)
            estimator.frame_ = Frame.of_properties(content["frame"])
            estimator._restore_model(content["model"])
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise DamagedArtifactError(
                f"{path}: its parts are no {cls.__name__} ({type(error).__name__}: {first_line(error)}); save it again"
            ) from error
        return estimator

    @abstractmethod
    def _model_state(self) -> dict[str, Any]:
        """Return what :meth:`_restore_model` makes ``model_`` of: tensors and plain values."""

    @abstractmethod
    def _restore_model(self, state: dict[str, Any]) -> None:
        """Make ``model_`` of what :meth:`_model_state` returned; parameters and other attributes are there."""

    def _made(self, model: type[ModelT], values: dict[str, Any]) -> ModelT:
        """Return the model of checked values: an integer is no text, no bool and no float.

        Raises:
            ConfigError: one is of another type or out of range; names the parameter, what was expected, what was given.
        """
        try:
            return model.model_validate(values, strict=True)
        except ValidationError as error:
            told: dict[str, tuple[Any, dict[str, None]]] = {}
            for problem in error.errors():
                section, key = str(problem["loc"][0]), ".".join(map(str, problem["loc"][:2]))
                word = self.WORDS.get(key) or (section if section in self.get_params(deep=False) else key)
                given, words = told.setdefault(word, (problem["input"], {}))
                if given is problem["input"]:  # a sequence that is empty but for refused items is no second fault
                    words[expected(problem) or problem["msg"].removeprefix("Value error, ")] = None
            lines = (f"{word}: expected {' or '.join(words)} (got {given!r})" for word, (given, words) in told.items())
            raise ConfigError("; ".join(lines)) from None

    def _learning(self) -> Self:
        """Return a copy to learn on, parameters and attributes alike, which :meth:`_become` takes over.

        Whoever interrupts a fit has the estimator of before, not new rows' frame around old weights.
        """
        anew = type(self).__new__(type(self))
        anew.__dict__.update(self.__dict__)
        return anew

    def _become(self, learned: Self) -> None:
        """Take over what a copy has learned."""
        self.__dict__ = learned.__dict__

    def _seed(self) -> int:
        """Return a seed of ``random_state``.

        Raises:
            ConfigError: it, or another parameter that no recipe has, is none; see :meth:`_made`.
        """
        conduct = {name: plain(getattr(self, name)) for name in Conduct.model_fields if hasattr(self, name)}
        self._made(Conduct, conduct)
        return int(check_random_state(self.random_state).randint(2**31 - 1))

    def _layers(self) -> Any:
        """Return ``hidden`` as a recipe has it; a number alone is one layer."""
        hidden = plain(self.hidden)
        return (hidden,) if isinstance(hidden, int) else hidden

    def _rows(self, X: ArrayLike, *, reset: bool, **checks: Any) -> ArrayVectors | SparseVectors:
        """Return rows (B, D), checked; those to learn from must differ.

        Raises:
            ConfigError: they are no rows of features.
            ConstantDataError: all rows to learn from are equal.
        """
        refuse_no_features(X)
        array = validate_data(self, as_rows(X), reset=reset, order="C", **checks)
        if reset:
            self.frame_ = Frame.of(array)
        rows = framed(array, self.frame_)
        if reset:
            refuse_equal(rows)
            warn_of_far(rows, self.frame_)
            warn_of_dominant(rows, getattr(self, "feature_names_in_", None))
        return rows

    def _set_model(self, model: nn.Module) -> None:
        """Take what was learned on framed rows, and make ``model_``, which takes rows such as ``X``, of it."""
        self._model = model.eval()
        self.model_ = self._model if self.frame_.changes_nothing else Framed(self.frame_, model).eval()

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn of the line in the user's own code, past this package and what wraps its methods."""
    level, frame = 2, sys._getframe(1)
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] in WRAPPERS:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)


@contextlib.contextmanager
def told_in(words: Mapping[str, str]) -> Iterator[None]:
    """Raise errors of ours with an estimator's parameters in place of the settings that a run has.

    Args:
        words: the estimator's ``WORDS``; a setting that it lacks is told as one of runs.
    """
    try:
        yield
    except DistSpectralError as error:
        others = {key: f"{key} (a setting of runs)" for key in error.parameters}
        raise error.in_words({**others, **words}) from error


def refuse_no_features(X: Any) -> None:
    """Refuse what holds features among other things, and the affinities of a graph where rows are expected.

    Raises:
        ConfigError: just that.
    """
    if hasattr(X, "obsm") and hasattr(X, "obs"):
        raise ConfigError(
            f"X: is an {type(X).__name__}; call distspectral.scanpy.spectral(X), or give its features, such as "
            "X.obsm['X_pca']"
        )
    if sparse.issparse(X) and X.ndim == 2 and X.shape[0] == X.shape[1] and X.nnz:
        is_graph = not X.diagonal().any() and X.min() >= 0 and abs(X - X.T).nnz == 0
        if is_graph:
            raise ConfigError(
                f"X: is a symmetric matrix of {X.shape[0]} rows with an empty diagonal, the affinities of a graph, "
                "where features are expected; give the rows that it was made of, too: "
                "SpectralNet(affinity='precomputed').fit(adata.obsm['X_pca'], graph=adata.obsp['connectivities'])"
            )


def refuse_equal(rows: Vectors) -> None:
    """Refuse rows to learn from that do not differ.

    Raises:
        ConstantDataError: just that.
    """
    if rows.n_rows > 1 and is_constant(rows.mean, rows.scale):
        raise ConstantDataError(
            f"X: all {rows.n_rows} rows are equal, so no row is nearer than another; give rows that differ"
        )


def warn_of_far(rows: Vectors, frame: Frame) -> None:
    """Warn of rows to learn from of which a few lie so far away that a network cannot tell the others apart."""
    if frame.excess(float(np.max(rows.scale))) is not None:
        blocks = range(0, rows.n_rows, BLOCK_ROWS)
        apart = [np.abs(rows.block(i, min(i + BLOCK_ROWS, rows.n_rows)) - rows.mean).max(axis=1) for i in blocks]
        row = int(np.argmax(np.concatenate(apart)))
        warn(
            f"X: row {row}, and perhaps others, lies so far from the rest that a network sees little of what tells "
            "these apart; leave it out, or scale the features"
        )


def warn_of_dominant(rows: ArrayVectors | SparseVectors, names: Sequence[str] | None) -> None:
    """Warn of a feature of rows to learn from that has most of the variance; ``names`` are those of the features."""
    if dominant := DominantFeature.of(rows.variances):
        name = f"feature {dominant.feature}" if names is None else repr(str(names[dominant.feature]))
        warn(f"X: {dominant.in_words(name)}")


def framed(array: Any, frame: Frame, labels: NDArray[Any] | None = None) -> ArrayVectors | SparseVectors:
    """Return checked rows (B, D) in a frame.

    Raises:
        NonFiniteRowError: a value is beyond float32 in this frame.
    """
    if sparse.issparse(array) and frame.origin is None:
        entries = array.tocoo()
        raw, features = entries.data[:, None], entries.col
        rows = frame.framed(raw)
        if frame.holds(rows):
            return SparseVectors(sparse.coo_matrix((rows[:, 0], (entries.row, features)), shape=array.shape))
        place, _, problem = frame.first_misfit(raw, rows)
        row, feature = int(entries.row[place]), int(features[place])
    else:
        dense = array.toarray() if sparse.issparse(array) else array
        rows = dense if dense.dtype == np.float32 and frame.changes_nothing else frame.framed(dense)
        if frame.holds(rows):
            return ArrayVectors(rows, labels)
        row, feature, problem = frame.first_misfit(dense, rows)
    raise NonFiniteRowError(f"X: row {row}, feature {feature}: {problem}; drop or repair the row")

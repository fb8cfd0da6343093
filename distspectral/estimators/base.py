"""What the estimators share: rows of arrays, the user's words in errors, files."""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import ValidationError
from scipy import sparse
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import Tags, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import nn

from distspectral.errors import ConfigError, ConstantDataError, DistSpectralError, NonFiniteRowError
from distspectral.models.framed import Framed
from distspectral.recipes import Recipe
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.rows.frame import Frame
from distspectral.storage.rows.moments import is_constant
from distspectral.storage.rows.sparse import SparseVectors
from distspectral.storage.rows.vectors import ArrayVectors, Vectors
from distspectral.training.checkpoint import read_state, write_state
from distspectral.training.loop import WindowRecorder

RecipeT = TypeVar("RecipeT", bound=Recipe)


class NetworkEstimator(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """An estimator that trains a network on arrays in memory, by the recipe that a run of its kind follows."""

    WORDS: ClassVar[Mapping[str, str]]
    """What the estimator calls a setting of a run, by the setting's key."""
    frame_: Frame
    """Where the rows learned from lie."""

    def fit_transform(self, X: ArrayLike, y: Any = None, **fit_params: Any) -> NDArray[np.float32]:
        """Fit and return the embedding of the training rows."""
        fitted = self.fit(X, y, **fit_params)
        embedding: NDArray[np.float32] = fitted.transform(X)
        return embedding

    def save(self, path: str | Path) -> None:
        """Write the fitted estimator to one file, whole or not at all; it holds no pickled code."""
        check_is_fitted(self)
        path = Path(path).absolute()
        seed = self.random_state if isinstance(self.random_state, int) else None
        params = self.get_params(deep=False) | {"random_state": seed, "hidden": list(self.hidden)}
        state = {"params": params, "frame": self.frame_.properties(), **self._state()}
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
        params = state.pop("params")
        estimator = cls(**params | {"hidden": tuple(params["hidden"])})
        estimator.frame_ = Frame.of_properties(state.pop("frame"))
        estimator._restore(state)
        return estimator

    @abstractmethod
    def _state(self) -> dict[str, Any]:
        """Return what :meth:`_restore` needs beside the parameters: tensors and plain values."""

    @abstractmethod
    def _restore(self, state: dict[str, Any]) -> None:
        """Take what :meth:`_state` returned."""

    def _made(self, recipe: type[RecipeT], values: dict[str, Any]) -> RecipeT:
        """Return the recipe of checked values.

        Raises:
            ConfigError: one is out of range; names the parameter, what was expected and what was given.
        """
        try:
            return recipe.model_validate(values)
        except ValidationError as error:
            told = (
                f"{self.WORDS.get(key, key)}: {problem['msg']} (got {problem['input']!r})"
                for problem in error.errors()
                for key in [".".join(map(str, problem["loc"][:2]))]
            )
            raise ConfigError("; ".join(dict.fromkeys(told))) from None

    def _seed(self) -> int:
        return int(check_random_state(self.random_state).randint(2**31 - 1))

    def _rows(self, X: ArrayLike, *, reset: bool, **checks: Any) -> ArrayVectors | SparseVectors:
        """Return rows (B, D), checked; those to learn from must differ.

        Raises:
            ConstantDataError: all rows to learn from are equal.
        """
        array = validate_data(self, X, reset=reset, order="C", **checks)
        if reset:
            self.frame_ = Frame.of(array)
        rows = framed(array, self.frame_)
        if reset:
            refuse_equal(rows)
        return rows

    def _for_raw_rows(self, module: nn.Module) -> nn.Module:
        """Return a module for framed rows as one for rows such as ``X``."""
        return module if self.frame_.changes_nothing else Framed(self.frame_, module).eval()

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags


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


def refuse_equal(rows: Vectors) -> None:
    """Refuse rows to learn from that do not differ.

    Raises:
        ConstantDataError: just that.
    """
    if rows.n_rows > 1 and is_constant(rows.mean, rows.scale):
        raise ConstantDataError(
            f"X: all {rows.n_rows} rows are equal, so no row is nearer than another; give rows that differ"
        )


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


class WindowPrinter(WindowRecorder):
    """Keeps the history and, if asked, prints a line per window, headed by what is trained."""

    def __init__(self, verbose: bool, trained: str) -> None:
        super().__init__()
        self.verbose, self.trained = verbose, trained

    def window(self, record: dict[str, Any]) -> None:
        """Keep and print one window."""
        super().window(record)
        if self.verbose:
            ritz_sum = f"  Ritz sum {record['ritz_sum']:.5f}" if "ritz_sum" in record else ""
            print(f"{self.trained} step {record['step']:>6}  loss {record['loss']:.4f}{ritz_sum}")

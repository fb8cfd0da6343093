"""One family of exceptions: each says where, what was found, what was expected and what to do.

A message names a parameter by its owner and field, such as ``train.learning_rate``, and the error carries these names
beside it. A config file calls them so; a caller that does not, such as an estimator, puts its own words in their place.
Instances survive pickling between Ray processes unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Self


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says, its kind if it says nothing: for a message that goes on."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


class DistSpectralError(Exception):
    """Base of every error that distspectral raises on purpose.

    Args:
        message: for people.
        parameters: owner and field of every parameter that the message names, as it names them.
    """

    def __init__(self, message: str, parameters: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.parameters = tuple(parameters)

    def in_words(self, words: Mapping[str, str]) -> Self:
        """Return the same error whose message calls parameters as the caller knows them.

        Args:
            words: the caller's word by owner and field; those it lacks stay as they are. By ``remove`` and a parameter:
                what a caller does who cannot remove it.
        """
        message = str(self)
        for parameter in sorted(self.parameters, key=len, reverse=True):  # none is then a part of a later one
            removal = f"remove {parameter}"
            message = message.replace(removal, words.get(removal, removal))
            message = message.replace(parameter, words.get(parameter, parameter))
        return type(self)(message)


class ConfigError(DistSpectralError, ValueError):
    """A config value is missing, malformed or contradicts another one."""


class UnknownKeyError(ConfigError):
    """A config key that does not exist; the message names the nearest real one."""


class MissingDependencyError(DistSpectralError):
    """An optional dependency is not installed; the message says which to install."""


class SourceError(DistSpectralError, ValueError):
    """Something is wrong with the user's data; the message names file and row."""


class NoShardsError(SourceError):
    """The path names no readable shard."""


class TableError(SourceError):
    """The files are those of a table format, whose log decides which of their rows are live."""


class CorruptShardError(SourceError):
    """A shard cannot be parsed."""


class AbsurdShardError(SourceError):
    """A shard claims sizes that no honest file has: too wide, or far more rows than its bytes can hold."""


class EmptyShardError(SourceError):
    """A shard holds no rows."""


class ShardWidthError(SourceError):
    """A shard's vectors have another dimension than the first shard's."""


class UnknownColumnError(SourceError):
    """A column named in the config is not in the shard."""


class UnsupportedTypeError(SourceError):
    """A column's type is none of those that can be read."""


class NonFiniteRowError(SourceError):
    """A vector holds NaN or infinity."""


class DuplicateIdError(SourceError):
    """Two rows carry the same id."""


class TooFewRowsError(SourceError):
    """There are fewer rows than the graph's k + 1."""


class ConstantDataError(SourceError):
    """All rows are equal, so no neighbourhood carries information."""


class SearchFailedError(DistSpectralError):
    """A neighbour search finds too little: its device is broken, or cells do not fit the rows."""


class NoEdgesError(SourceError):
    """The graph has no edges of positive weight where pairs are to be drawn."""


class TooManyClustersError(ConfigError):
    """More clusters were asked for than there are rows."""


class TooFewClassesError(SourceError):
    """There are fewer than two classes where rows are to be told apart by class."""


class ArtifactError(DistSpectralError):
    """An artifact directory cannot be used."""


class MissingArtifactError(ArtifactError):
    """A stage's input does not exist or was never finished."""


class FingerprintMismatchError(ArtifactError):
    """An artifact was made from other inputs or another config than the one at hand."""


class DamagedArtifactError(ArtifactError):
    """A file of a finished artifact is missing or has another size than its manifest says."""


class OutputNotWritableError(ArtifactError):
    """The output directory cannot be created or written, or belongs to something else."""


class DirectoryHeldError(ArtifactError):
    """Another process is writing the directory; the message says who."""


class ExportError(DistSpectralError):
    """An exported program cannot be made, or says something else than the network it was made from."""


class RequestError(DistSpectralError, ValueError):
    """A request's rows cannot be used; the message names the row. ``status`` is the HTTP status that says so."""

    status = 400


class RequestTooLargeError(RequestError):
    """A request holds more rows than are answered at once."""

    status = 413


class SlowBodyError(RequestError):
    """A request's body did not arrive in time."""

    status = 408


class UnfitRowError(RequestError):
    """The model has no finite answer to a row."""

    status = 422


class BusyError(RequestError):
    """Nobody can answer at the moment; the client may ask again."""

    status = 503


class UnsupportedBodyError(RequestError):
    """A request's body is of none of the kinds that can be read."""

    status = 415


class WorkerLostError(DistSpectralError):
    """A worker or its node died more often than ``ray.task_retries`` allows."""


class ClusterUnreachableError(DistSpectralError):
    """The dashboard of a Ray cluster, which takes jobs, does not answer."""


class NumericalError(DistSpectralError):
    """The mathematics cannot go on."""


class RankDeficientError(NumericalError):
    """A Gram matrix is not positive definite after jitter: some functions are dependent."""


class OtherRankFailedError(DistSpectralError):
    """Another rank met an error, so this one cannot go on either."""


class NonFiniteStepError(NumericalError):
    """A training step met NaN or infinity; all ranks see it in the same step."""


class CollapsedError(NumericalError):
    """A trained network maps all rows to one point."""


class RanksDivergedError(NumericalError):
    """Workers hold different moving-average factors although they must be bit-identical."""

"""A run in MLflow: its config without secrets, each stage's seconds and each window of training as they come.

The run does not depend on it: a server that goes away is told of once, and the run goes on.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from distspectral.errors import ConfigError, first_line
from distspectral.orchestration.environment import environment_defaults
from distspectral.secrets import redacted, redacted_values
from distspectral.training.run_log import curves

if TYPE_CHECKING:
    from distspectral.config.ray import MlflowConfig
    from distspectral.orchestration.observer import Observer

PARAMS_PER_CALL = 100
"""MLflow takes no more at once; of metrics, which we send in smaller numbers, a thousand."""

logger = logging.getLogger(__name__)


class MlflowObserver:
    """Passes everything on to another observer and tells MLflow.

    Args:
        observer: what the user sees.
        config: the YAML section ``mlflow``.
        name: the run's name.
        params: the whole config, nested.

    Raises:
        ConfigError: no server answers; MLflow has then tried for as long as its MLFLOW_HTTP_REQUEST_MAX_RETRIES say.
    """

    def __init__(self, observer: Observer, config: MlflowConfig, name: str, params: Mapping[str, Any]) -> None:
        self.observer = observer
        self._stage, self._is_lost = "", False
        try:
            self._client = MlflowClient(config.tracking_uri)
            experiment = self._client.get_experiment_by_name(config.experiment)
            number = experiment.experiment_id if experiment else self._client.create_experiment(config.experiment)
            self.run_id: str = self._client.create_run(number, run_name=name).info.run_id
            listed = [Param(key, str(value)) for key, value in _leaves(redacted_values(params), ".")]
            for first in range(0, len(listed), PARAMS_PER_CALL):
                self._client.log_batch(self.run_id, params=listed[first : first + PARAMS_PER_CALL])
        except MlflowException as error:
            raise ConfigError(
                redacted(f"mlflow: {config.tracking_uri or 'MLFLOW_TRACKING_URI'}: {first_line(error)}")
                + "; set mlflow.tracking_uri to a server that answers, or leave out the section mlflow",
                ["mlflow.tracking_uri"],
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        status = "FINISHED" if kind is None else "FAILED" if issubclass(kind, Exception) else "KILLED"
        with environment_defaults(MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT="true"):  # with its password, amid our results
            self._send(lambda: self._client.set_terminated(self.run_id, status))

    def started(self, stage: str) -> None:
        """A stage begins to work."""
        self._stage = stage
        self.observer.started(stage)

    def skipped(self, stage: str) -> None:
        """A stage is up to date."""
        self.observer.skipped(stage)

    def finished(self, stage: str, seconds: float) -> None:
        """A stage is done."""
        self._log({f"seconds/{stage}": seconds}, 0)
        self.observer.finished(stage, seconds)

    def progress(self, description: str, done: int, total: int) -> None:
        """Items, or steps of training, are done."""
        self.observer.progress(description, done, total)

    def window(self, record: dict[str, Any]) -> None:
        """Training finished a window of steps."""
        named = {f"{self._stage}/{name.removeprefix('train/')}": value for name, value in curves(record).items()}
        self._log(named, record["step"])
        self.observer.window(record)

    def results(self, metrics: Mapping[str, Any]) -> None:
        """Log every number of ``metrics.json``."""
        self._log({f"results/{name}": value for name, value in _leaves(metrics, "/")}, 0)

    def _log(self, values: Mapping[str, Any], step: int) -> None:
        now = int(1000 * time.time())
        numbers = {name: value for name, value in values.items() if type(value) in (int, float)}
        listed = [Metric(name, float(value), now, step) for name, value in numbers.items()]
        self._send(lambda: self._client.log_batch(self.run_id, metrics=listed))

    def _send(self, call: Callable[[], object]) -> None:
        if self._is_lost:
            return
        try:
            call()
        except MlflowException as error:
            self._is_lost = True
            logger.warning("mlflow does not answer (%s); the run goes on without it", redacted(first_line(error)))


def _leaves(values: Mapping[str, Any], separator: str) -> Iterator[tuple[str, Any]]:
    """Yield what is not a mapping, by the names on the way to it."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from ((f"{key}{separator}{inner}", leaf) for inner, leaf in _leaves(value, separator))
        else:
            yield key, value

"""Who does a stage's work: this process alone, or a Ray cluster that is joined when the first stage has work."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from distspectral.config.ray import ActorCount, RayConfig
from distspectral.devices import hidden_gpus
from distspectral.mapping import Mapper, local_map
from distspectral.stages.stage import Stage
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.artifact.manifest import Manifest
from distspectral.storage.artifact.output import Output

if TYPE_CHECKING:
    from distspectral.training.run_log import OnWindow
    from distspectral.training.settings import TrainSettings


SMALL_TRAINING = 2e13
"""Operations, some minutes of two cores in float32 and one in bfloat16. Two ranks of a thread each are about as fast
there as one process of two threads, and a group takes some eight seconds to start."""

SMALL_DATA = 1 << 22
"""Numbers in all rows: their whole run takes a minute of one process, to which a Ray of its own adds ten seconds."""

logger = logging.getLogger(__name__)


def wants_ray(config: RayConfig, n_values: float) -> bool:
    """Return whether a run on rows of so many numbers starts Ray, or joins one that the config or environment names."""
    return config.enabled and (n_values > SMALL_DATA or names_cluster(config) or config != RayConfig())


class LocalEngine:
    """Everything in this process, one item after the other; never imports Ray."""

    is_one_process = True

    def start(self, stages: Sequence[Stage], n_values: float = math.inf) -> None:
        """Get ready for stages that have work on rows of so many numbers."""

    def mapper(self, stage: Stage) -> Mapper:
        """Return what hands out the items of a stage: the plain loop."""
        return local_map

    def slots(self) -> int:
        """Return how many items are worked on at once."""
        return 1

    def train(
        self,
        vectors: Sequence[Artifact],
        graph: Artifact | None,
        output: Output,
        settings: TrainSettings,
        operations: float,
        on_window: OnWindow,
    ) -> Manifest:
        """Train in this process; ``on_window`` hears of each window of steps."""
        from distspectral.stages.train import train

        return train(vectors, graph, output, settings, on_window=on_window)

    def close(self) -> None:
        """Give back what was taken."""


class RayEngine:
    """Ray tasks, a Ray Data actor pool and Ray Train, on a cluster joined by ``start``.

    Args:
        config: the YAML section ``ray``.

    Attributes:
        is_one_process: whether this process does all of it, for there is little and no Ray was asked for.
    """

    def __init__(self, config: RayConfig) -> None:
        self.config = config
        self.is_one_process = self._connected_here = False

    def start(self, stages: Sequence[Stage], n_values: float = math.inf) -> None:
        """Join the cluster, or start a local one, if there are any stages that have work that is worth one.

        Args:
            stages: that have work.
            n_values: numbers in the rows that they work on.

        Raises:
            ConfigError: nothing answers, or there is no room for what one of them asks and there will be none.
        """
        if not stages:
            return
        self.is_one_process = not self._has_joined() and not wants_ray(self.config, n_values)
        if self.is_one_process:
            return
        self._join()
        from distspectral.orchestration.room import require_room

        require_room(self.config, [stage.name for stage in stages])

    def _has_joined(self) -> bool:
        return self._connected_here or ("ray" in sys.modules and sys.modules["ray"].is_initialized())

    def _join(self) -> None:
        """Join the cluster; who handled SIGTERM before goes on to, for Ray's handler aborts within three seconds."""
        from distspectral.orchestration.connection import connect

        before = signal.getsignal(signal.SIGTERM)
        self._connected_here |= connect(self.config)
        if callable(before) and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)

    def mapper(self, stage: Stage) -> Mapper:
        """Return the mapper over Ray tasks, or over a pool of actors: one for each GPU, or as many as are asked for.

        A process keeps the model that it loaded last from task to task, too; an actor is a process of its own.
        """
        if self.is_one_process:
            return local_map

        def map_items(
            function: Callable[[Any], Any], items: Sequence[Any], description: str, *, on_gpu: bool = False
        ) -> Iterator[Any]:
            from distspectral.orchestration.resources import request
            from distspectral.orchestration.room import require_unit

            asked = request(self.config, stage.name, on_gpu=on_gpu)
            require_unit(self.config, stage.name, asked)
            if asked.num_gpus or (stage.workers == "actors" and self.config.actors != ActorCount()):
                from distspectral.orchestration.actors import actor_mapper as make
            else:
                from distspectral.orchestration.tasks import task_mapper as make
            return make(self.config, stage.name)(function, items, description, on_gpu=on_gpu)

        return map_items

    def slots(self) -> int:
        """Return the cores of the cluster of this moment."""
        if self.is_one_process:
            return 1
        from distspectral.orchestration.connection import cluster_cores

        return cluster_cores()

    def train(
        self,
        vectors: Sequence[Artifact],
        graph: Artifact | None,
        output: Output,
        settings: TrainSettings,
        operations: float,
        on_window: OnWindow,
    ) -> Manifest:
        """Train with Ray Train; where its controller is lost, leave Ray, join it anew, and go on.

        Args:
            vectors: as of :func:`distspectral.stages.train.train`, and the next three.
            graph: likewise.
            output: likewise.
            settings: likewise.
            operations: additions and multiplications at most; a small training stays in this process.
            on_window: called with each window's metrics.
        """
        if self.is_one_process or self._trains_here(output.stage, operations):
            from distspectral.stages.train import train as train_here

            # of Ray's those that the config does not want
            with contextlib.nullcontext() if self.is_one_process else hidden_gpus():
                return train_here(vectors, graph, output, settings, on_window=on_window)
        from distspectral.orchestration.train import ControllerLostError, train

        for _ in range(self.config.task_retries if self._connected_here else 0):
            try:
                return train(vectors, graph, output, settings, self.config, on_window=on_window)
            except ControllerLostError as error:
                logger.warning("%s; tried again", str(error).partition(";")[0])
                self.close()
                self._join()
        return train(vectors, graph, output, settings, self.config, on_window=on_window)

    def _trains_here(self, stage: str, operations: float) -> bool:
        """Whether this process trains, for a group would take longer to start than it saves, and nobody asked for one.

        That is so on a Ray of this run's own, whose cores are those of this process.
        """
        from distspectral.orchestration.connection import is_own
        from distspectral.orchestration.resources import request

        is_asked_for = self.config.workers != "auto" or stage in self.config.resources
        if is_asked_for or operations > SMALL_TRAINING or not is_own():
            return False
        return request(self.config, stage, on_gpu=True).num_gpus == 0

    def close(self) -> None:
        """Leave the cluster, if this engine joined it."""
        if self._connected_here:
            from distspectral.orchestration.connection import disconnect

            disconnect()
            self._connected_here = False


Engine = LocalEngine | RayEngine


def names_cluster(config: RayConfig) -> bool:
    """Whether a config, or the environment, names a Ray cluster that is to be joined."""
    return config.enabled and bool(config.address or os.environ.get("RAY_ADDRESS"))


def make_engine(config: RayConfig) -> Engine:
    """Return the engine that the config asks for; nothing is started yet."""
    return RayEngine(config) if config.enabled else LocalEngine()

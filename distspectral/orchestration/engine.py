"""Who does a stage's work: this process alone, or a Ray cluster that is joined when the first stage has work."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from distspectral.config.ray import RayConfig
from distspectral.mapping import Mapper, local_map
from distspectral.stages.stage import Stage
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.artifact.manifest import Manifest
from distspectral.storage.artifact.output import Output

if TYPE_CHECKING:
    from distspectral.training.run_log import OnWindow
    from distspectral.training.settings import TrainSettings


logger = logging.getLogger(__name__)


class LocalEngine:
    """Everything in this process, one item after the other; never imports Ray."""

    is_one_process = True

    def start(self, stages: Sequence[Stage]) -> None:
        """Get ready for stages that have work."""

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
    """

    is_one_process = False

    def __init__(self, config: RayConfig) -> None:
        self.config = config
        self._connected_here = False

    def start(self, stages: Sequence[Stage]) -> None:
        """Join the cluster, or start a local one, if there are any stages that have work.

        Raises:
            ConfigError: nothing answers, or there is no room for what one of them asks and there will be none.
        """
        if not stages:
            return
        self._join()
        from distspectral.orchestration.room import require_room

        require_room(self.config, [stage.name for stage in stages])

    def _join(self) -> None:
        """Join the cluster; who handled SIGTERM before goes on to, for Ray's handler aborts within three seconds."""
        from distspectral.orchestration.connection import connect

        before = signal.getsignal(signal.SIGTERM)
        self._connected_here |= connect(self.config)
        if callable(before) and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)

    def mapper(self, stage: Stage) -> Mapper:
        """Return the mapper over Ray tasks, or over a pool of actors: those of the stage, or one for each GPU."""

        def map_items(
            function: Callable[[Any], Any], items: Sequence[Any], description: str, *, on_gpu: bool = False
        ) -> Iterator[Any]:
            from distspectral.orchestration.resources import request
            from distspectral.orchestration.room import require_unit

            asked = request(self.config, stage.name, on_gpu=on_gpu)
            require_unit(self.config, stage.name, asked)
            if stage.workers == "actors" or asked.num_gpus:
                from distspectral.orchestration.actors import actor_mapper as make
            else:
                from distspectral.orchestration.tasks import task_mapper as make
            return make(self.config, stage.name)(function, items, description, on_gpu=on_gpu)

        return map_items

    def slots(self) -> int:
        """Return the cores of the cluster of this moment."""
        from distspectral.orchestration.connection import cluster_cores

        return cluster_cores()

    def train(
        self,
        vectors: Sequence[Artifact],
        graph: Artifact | None,
        output: Output,
        settings: TrainSettings,
        on_window: OnWindow,
    ) -> Manifest:
        """Train with Ray Train; where its controller is lost, leave Ray, join it anew, and go on."""
        from distspectral.orchestration.train import ControllerLostError, train

        for _ in range(self.config.task_retries if self._connected_here else 0):
            try:
                return train(vectors, graph, output, settings, self.config, on_window=on_window)
            except ControllerLostError as error:
                logger.warning("%s; tried again", str(error).partition(";")[0])
                self.close()
                self._join()
        return train(vectors, graph, output, settings, self.config, on_window=on_window)

    def close(self) -> None:
        """Leave the cluster, if this engine joined it."""
        if self._connected_here:
            from distspectral.orchestration.connection import disconnect

            disconnect()
            self._connected_here = False


Engine = LocalEngine | RayEngine


def make_engine(config: RayConfig) -> Engine:
    """Return the engine that the config asks for; nothing is started yet."""
    return RayEngine(config) if config.enabled else LocalEngine()

"""One stage under way: what it is run with, what is heard of it, and what it costs."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from distspectral.costs.training import operations
from distspectral.mapping import Mapper
from distspectral.orchestration.chain import Chain
from distspectral.orchestration.engine import Engine
from distspectral.orchestration.gauges import MetricsObserver
from distspectral.orchestration.memory import PeakMemory
from distspectral.orchestration.stragglers import Timed, Timing, report
from distspectral.recipes import Recipe
from distspectral.stages.stage import Stage, Work
from distspectral.storage.artifact.directory import MANIFEST, Artifact
from distspectral.storage.artifact.holding import Hold
from distspectral.storage.artifact.manifest import Manifest
from distspectral.storage.artifact.output import Output
from distspectral.storage.source.dataset import Source
from distspectral.training.settings import TrainSettings

if TYPE_CHECKING:
    from distspectral.stages.stage import Unfinished

T = TypeVar("T")

logger = logging.getLogger(__name__)


class StageRun:
    """A stage, run once.

    Args:
        stage: what it is.
        chain: that it stands in.
        recipe: of the run, knowing what finished artifacts tell.
        settings: of the run, by stage.
        engine: does the work.
        events: hear how it goes on.
        hold: on the directory that it writes to, lost if another process took it.
    """

    def __init__(
        self,
        stage: Stage,
        chain: Chain,
        recipe: Recipe,
        settings: Mapping[str, Any],
        engine: Engine,
        events: MetricsObserver,
        hold: Hold,
    ) -> None:
        self._stage, self._chain, self._recipe, self._settings = stage, chain, recipe, settings
        self._engine, self._events, self._hold = engine, events, hold
        self._core_seconds = self._core_seconds_here = 0.0  # of the workers

    def whole(self, output: Output, source: Source, made: Mapping[str, Artifact]) -> Manifest:
        """Run it, and add to its manifest what it cost; see :meth:`work`."""
        work, began = self.work(output, source, made), time.process_time()
        with PeakMemory() as memory:
            manifest, seconds = self._timed(lambda: self._stage.run(work))
        here = time.process_time() - began - self._core_seconds_here
        cost = {
            "seconds": seconds,
            "core_seconds": {"workers": self._core_seconds, "driver": max(here, 0.0)},
            "slots": self._engine.slots(),
            "peak_rss_bytes": memory.peak_bytes,
            "driver_bytes": memory.own_bytes,
        }
        manifest = manifest.model_copy(update={"metrics": manifest.metrics | cost})
        self._hold.require()
        output.artifact.write_json(MANIFEST, manifest.model_dump())
        return manifest

    def part(self, output: Output, source: Source, shards: range) -> Manifest | Unfinished:
        """Run it for some of the shards of an output that several processes fill."""
        run_part = self._stage.run_part
        assert run_part is not None, "the caller has seen to it"
        return self._timed(lambda: run_part(self.work(output, source, {}), shards))[0]

    def _timed(self, work: Callable[[], T]) -> tuple[T, float]:
        """Return what the work returns and its seconds, observers knowing of it."""
        self._events.started(self._stage.name)
        began = time.perf_counter()
        done = work()
        seconds = time.perf_counter() - began
        self._events.finished(self._stage.name, seconds)
        return done, seconds

    def work(self, output: Output, source: Source, made: Mapping[str, Artifact]) -> Work:
        """Return what a stage is run with.

        Args:
            output: where it writes.
            source: the rows at hand, this run's or others.
            made: artifacts of other rows, by stage, in place of this run's.
        """
        artifacts = self._chain.artifacts | dict(made)
        are_others = source.fingerprint() != self._chain.source
        return Work(
            recipe=self._recipe,
            settings=self._settings,
            artifacts=artifacts,
            output=output,
            source=source,
            mapper=self._watched(self._engine.mapper(self._stage)),
            train=self._train,
            trained_on=self._trained_on() if are_others else None,
        )

    def _trained_on(self) -> Artifact | None:
        """Return the vectors trained on, None where they are gone."""
        packed = self._chain.outputs["pack"]
        if not packed.artifact.is_current(packed.fingerprint):
            logger.warning("%s: is not whole, so the new rows are not compared with it", packed.artifact.uri)
            return None
        return packed.artifact

    def _watched(self, mapper: Mapper) -> Mapper:
        """Return the mapper, reporting each item to the observer, and at the end those that took far too long."""

        def mapped(
            function: Callable[[Any], Any], items: Sequence[Any], description: str, *, on_gpu: bool = False
        ) -> Iterator[Any]:
            self._events.progress(description, 0, len(items))
            timings: list[Timing] = []
            for timing, result in mapper(Timed(function), items, description, on_gpu=on_gpu):
                timings.append(timing)
                self._hold.require()
                self._count(timing.core_seconds, is_here=self._engine.is_one_process)
                self._events.progress(description, len(timings), len(items))
                yield result
            report(timings, description)

        return mapped

    def _train(
        self, vectors: tuple[Artifact, ...], graph: Artifact | None, output: Output, settings: TrainSettings
    ) -> Manifest:
        """Train whatever the settings say, reporting each window to the observer."""
        n_rows = vectors[0].manifest().n_rows
        n_steps = settings.train.steps(n_rows)

        def on_window(record: dict[str, Any]) -> None:
            self._events.progress("training", record["step"], n_steps)
            self._count(record["core_seconds"] * record.get("workers", 1), is_here="workers" not in record)
            self._events.window(record)

        layers = self._recipe.layers.get(output.stage)  # None of a module of the user's own
        work = math.inf if layers is None else operations(layers, settings.train, n_rows)
        return self._engine.train(vectors, graph, output, settings, work, on_window)

    def _count(self, core_seconds: float, is_here: bool) -> None:
        """Add to what workers took for the stage under way; what this process did in their place is no driver's."""
        self._core_seconds += core_seconds
        self._core_seconds_here += core_seconds * is_here

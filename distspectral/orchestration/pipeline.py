"""The order of the stages: what is current is skipped, what is not runs, and the root then says how it went."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from distspectral.errors import ConfigError
from distspectral.orchestration.engine import Engine
from distspectral.orchestration.gauges import MetricsObserver
from distspectral.orchestration.memory import PeakMemory
from distspectral.orchestration.observer import Observer
from distspectral.orchestration.stage_calls import StageCalls
from distspectral.report.metrics import METRICS, PAGE, run_metrics, stages_of
from distspectral.stages.plan import SOURCE, Plan, make_plan
from distspectral.storage.artifact.directory import MANIFEST, Artifact
from distspectral.storage.artifact.manifest import Manifest
from distspectral.storage.artifact.output import Output
from distspectral.storage.source.dataset import Source

if TYPE_CHECKING:
    from distspectral.config import RunConfig
    from distspectral.stages.embed import Unfinished


class Pipeline:
    """One run: its config, its opened data, its plan, and the engine that does the work.

    Args:
        config: the run, checked.
        source: its opened data.
        engine: does the stages' work; nothing is asked of it while all stages are current.
        observer: hears how it goes on.
    """

    def __init__(self, config: RunConfig, source: Source, engine: Engine, observer: Observer) -> None:
        self.config, self.source, self.engine, self.observer = config, source, engine, observer
        self._settings: dict[str, BaseModel | int] = {
            "pack": config.pack,
            "autoencoder": config.autoencoder_settings,
            "graph": config.graph,
            "affinity": config.affinity,
            "siamese": config.siamese_settings,
            "training": config.train_settings,
            "cluster": config.cluster,
            "embed": config.embed,
            "evaluate": config.evaluate,
            "seed": config.seed,
        }
        # absolute, for workers may have another working directory
        root = config.root if "://" in config.root else str(Path(config.root).expanduser().absolute())
        self.plan: Plan = make_plan(
            Artifact(root, config.storage.node_cache),
            self.source.fingerprint(),
            self._settings,
            config.chain(source.dim),
        )
        self._told = MetricsObserver(observer, config.name, self.plan.last.fingerprint)

    # ---- the whole -----------------------------------------------------------------------------------------

    def run(self) -> dict[str, Any]:
        """Bring every stage up to date, then write ``metrics.json`` and the report; return the metrics."""
        worked = False
        for stage, output in self.plan.outputs.items():
            if output.artifact.is_current(output.fingerprint):
                self._told.skipped(stage)
            else:
                self._work(stage, output)
                worked = True
        if not worked and (metrics := self._standing_metrics()) is not None:
            return metrics
        return self.report()

    def command(self, name: str) -> Manifest:
        """Run the stages behind one command, their inputs being there; a current one is skipped.

        Raises:
            ConfigError: the config's objective has no such stage.
            ArtifactError: an input is missing, damaged or made from another config.
        """
        stages = stages_of(self.plan.chain)
        if name not in stages:
            raise ConfigError(
                f"objective: is {self.config.objective}, whose stages are {', '.join(stages)}; there is no {name}"
            )
        for stage in stages[name]:
            output = self.plan.outputs[stage]
            if output.artifact.is_current(output.fingerprint):
                self._told.skipped(stage)
            else:
                self._require_inputs(stage)
                self._work(stage, output)
        return self.plan.artifact(stages[name][-1]).manifest()

    def embed_other(self, source: Source, directory: str) -> Manifest:
        """Embed other rows with this run's finished model, whatever has become of the rows it was trained on.

        Args:
            source: the other rows, opened.
            directory: local path or URI of their output.

        Raises:
            ArtifactError: the model is missing or made from another config.
        """
        self.plan = self._plan_as_trained()
        prints = {SOURCE: source.fingerprint()}
        if self.config.objective == "dscl":
            self._require_inputs("encode", "pack")
            folder = Artifact(directory)
            packed = self.plan.of_other_rows("pack", prints, folder.child(self.plan.chain["pack"].directory))
            self._unless_current("pack", packed, source)
            encoded = self.plan.of_other_rows(
                "encode", {"pack": packed.fingerprint}, folder.child(self.plan.chain["encode"].directory)
            )
            return self._unless_current("encode", encoded, source, packed.artifact)
        return self._unless_current("embed", self._of_other_rows(source, directory), source)

    def embed_part(
        self, shards: range, source: Source | None = None, directory: str | None = None
    ) -> Manifest | Unfinished:
        """Embed some of the shards, this run's or other rows', into an output that several processes fill.

        Args:
            shards: their numbers.
            source: the other rows, opened.
            directory: of the other rows' output.

        Raises:
            ConfigError: no shard has these numbers, or the run does not end in an embedding.
            ArtifactError: the model is missing or made from another config, or another result stands in the output.
        """
        if self.config.objective == "dscl":
            raise ConfigError("--shard-range: is for objective spectral; a metric embeds what `pack` wrote, as a whole")
        if source is None or directory is None:
            self._require_inputs("embed")
            source, output = self.source, self.plan.outputs["embed"]
        else:
            self.plan = self._plan_as_trained()
            output = self._of_other_rows(source, directory)
        if output.artifact.is_current(output.fingerprint):
            self._told.skipped("embed")
            return output.artifact.manifest()
        self._told.started("embed")
        self.engine.start()
        began = time.perf_counter()
        done = self._calls(source).embed_part(output, shards)
        self._told.finished("embed", time.perf_counter() - began)
        return done

    def _of_other_rows(self, source: Source, directory: str) -> Output:
        """Return the output of other rows, the model being there."""
        self._require_inputs("embed")
        return self.plan.of_other_rows("embed", {SOURCE: source.fingerprint()}, Artifact(directory))

    def _plan_as_trained(self) -> Plan:
        """Return the plan of when the vectors were packed: the source may have gained shards since."""
        vectors = self.plan.artifact("pack")
        then = vectors.manifest().inputs[SOURCE] if vectors.has(MANIFEST) else self.plan.source
        return make_plan(self.plan.root, then, self._settings, self.plan.chain)

    def report(self) -> dict[str, Any]:
        """Write ``metrics.json`` and, of a spectral run, ``report.html``, from the artifacts; return the metrics.

        Raises:
            ArtifactError: a stage has not been run, or with another config.
        """
        manifests = {name: out.artifact.require(out.fingerprint) for name, out in self.plan.outputs.items()}
        artifacts = {name: out.artifact for name, out in self.plan.outputs.items()}
        metrics = run_metrics(self.config.name, manifests, len(self.source.shards))
        if self.config.objective == "spectral":
            from distspectral.report.collect import collect, write_report

            write_report(self.plan.root, collect(self.config.model_dump(mode="json"), metrics, artifacts, manifests))
        self.plan.root.write_json(METRICS, metrics)
        return metrics

    # ---- one stage -----------------------------------------------------------------------------------------

    def _require_inputs(self, stage: str, *others: str) -> None:
        """Refuse a stage whose inputs, but for the ``others``, are missing or made from another config."""
        for name in set(self.plan.inputs(stage)).difference(others):
            planned = self.plan.outputs[name]
            planned.artifact.require(planned.fingerprint)

    def _unless_current(self, stage: str, output: Output, source: Source, vectors: Artifact | None = None) -> Manifest:
        """Run a stage on other rows unless its output stands already."""
        if output.artifact.is_current(output.fingerprint):
            self._told.skipped(stage)
            return output.artifact.manifest()
        return self._work(stage, output, source, vectors)

    def _work(
        self, stage: str, output: Output, source: Source | None = None, vectors: Artifact | None = None
    ) -> Manifest:
        """Run a stage, on other rows if given, and add to its manifest what it cost."""
        self._told.started(stage)
        self.engine.start()
        began = time.perf_counter()
        with PeakMemory() as memory:
            manifest = self._calls(source, vectors)(stage, output)
        seconds = time.perf_counter() - began
        cost = {"seconds": seconds, "peak_rss_bytes": memory.peak_bytes}
        manifest = manifest.model_copy(update={"metrics": manifest.metrics | cost})
        output.artifact.write_json(MANIFEST, manifest.model_dump())
        self._told.finished(stage, seconds)
        return manifest

    def _calls(self, source: Source | None = None, vectors: Artifact | None = None) -> StageCalls:
        """Return the stages' functions for this run's rows, or for others."""
        rows = source or self.source, vectors or self.plan.artifact("pack")
        return StageCalls(self.config, self.plan, self.engine, self._told, *rows)

    def _standing_metrics(self) -> dict[str, Any] | None:
        """Return ``metrics.json`` if it is of these very artifacts and the report, if any, stands beside it."""
        root = self.plan.root
        if not root.has(METRICS) or (self.config.objective == "spectral" and not root.has(PAGE)):
            return None
        try:
            metrics: dict[str, Any] = root.read_json(METRICS)
        except ValueError:
            return None
        return metrics if metrics.get("fingerprint") == self.plan.last.fingerprint else None


def run(config: RunConfig, engine: Engine, observer: Observer) -> dict[str, Any]:
    """Run the whole pipeline and return its metrics; the engine is closed at the end.

    Raises:
        DistSpectralError: what the config checks and the stages raise.
    """
    from distspectral.config import check

    source = Source.open(config.data)
    check(config, source)
    try:
        if config.mlflow is None:
            return Pipeline(config, source, engine, observer).run()
        from distspectral.orchestration.tracking import MlflowObserver

        with MlflowObserver(observer, config.mlflow, config.name, config.model_dump(mode="json")) as tracked:
            metrics = Pipeline(config, source, engine, tracked).run()
            tracked.results(metrics)
            return metrics
    finally:
        engine.close()

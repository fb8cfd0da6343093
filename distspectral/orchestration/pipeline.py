"""The order of the stages: what is current is skipped, what is not runs, and the root then says how it went."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import yaml

from distspectral.errors import ConfigError
from distspectral.orchestration.engine import Engine
from distspectral.orchestration.observer import Observer
from distspectral.orchestration.opened_run import OpenedRun, decided
from distspectral.stages.finished_run import CONFIG, METRICS, PAGE
from distspectral.stages.stage import Work
from distspectral.stages.trial import TRIAL
from distspectral.storage.artifact.manifest import Manifest
from distspectral.storage.artifact.output import Output
from distspectral.storage.source.dataset import Source

if TYPE_CHECKING:
    from distspectral.config import RunConfig
    from distspectral.stages.stage import Unfinished

UNTOLD = ("root", "ray", "storage", "mlflow")
"""Of a config: what neither metrics nor report depend on."""


class Pipeline(OpenedRun):
    """One run on its own rows.

    Args:
        config: the run, checked.
        source: its opened data.
        engine: does the stages' work; nothing is asked of it while all stages are current.
        observer: hears how it goes on.
    """

    def __init__(self, config: RunConfig, source: Source, engine: Engine, observer: Observer) -> None:
        super().__init__(config, engine, observer, *decided(config, source.dim, source.n_rows, source.fingerprint()))
        self.source = source

    def run(self) -> dict[str, Any]:
        """Bring every stage up to date, then write ``metrics.json`` and the report; return the metrics.

        What stands already is not written to, so that its directory may be another process's at this moment.

        Raises:
            DirectoryHeldError: another process writes the run's directory.
        """
        if not self._due() and (metrics := self._standing_metrics()) is not None:
            for name in self.chain.outputs:
                self.events.skipped(name)
            return metrics
        with self.held():
            self._write_config()
            first = list(self.chain.outputs)[: list(self.chain.outputs).index(TRIAL.name) + 1] if self._is_open else []
            self._bring_up_to_date(first)
            if first:
                self.recipe, self.chain = decided(self.config, self.source.dim, self.source.n_rows, self.chain.source)
                self.observe(self.observer)
            self._bring_up_to_date([name for name in self.chain.outputs if name not in first])
            return self.report()

    @property
    def _is_open(self) -> bool:
        """Whether a trial is due that decides on the stages after it."""
        tried = self.chain.outputs.get(TRIAL.name)
        return tried is not None and not tried.artifact.is_current(tried.fingerprint)

    def _bring_up_to_date(self, names: Sequence[str]) -> None:
        """Run those of some stages that have work, in order."""
        due = [name for name in self._due() if name in names]
        for name in due:
            self.chain.outputs[name].forget_damaged()
        if due:
            self.engine.start([self.chain.stages[name] for name in due], self.source.n_values)
        for name in names:
            if name in due:
                self._work(self.chain.outputs[name])
            else:
                self.events.skipped(name)

    def _due(self) -> list[str]:
        """Return the names of the stages that have work."""
        return [
            name for name, output in self.chain.outputs.items() if not output.artifact.is_current(output.fingerprint)
        ]

    def stage(self, name: str) -> Manifest:
        """Run one stage, its inputs being there; a current one is skipped.

        Raises:
            ConfigError: the run has no such stage.
            ArtifactError: an input is missing, damaged or made from another config.
        """
        if name not in self.chain.outputs:
            raise ConfigError(
                f"stage {name}: is none of this run, whose stages are {', '.join(self.chain.outputs)}; they follow "
                "from objective, representation, affinity.space and siamese.use",
                ["objective", "representation", "affinity.space", "siamese.use"],
            )
        output = self.chain.outputs[name]
        if self.skips(output):
            return output.artifact.manifest()
        self.require_inputs(name)
        with self.held():
            if self.skips(output):  # by now
                return output.artifact.manifest()
            output.forget_damaged()
            self._write_config()
            self.engine.start([self.chain.stages[name]], self.source.n_values)
            return self._work(output)

    def _write_config(self) -> None:
        values = self.config.model_dump(mode="json", exclude={"mlflow"})  # which may be reached by a secret
        self.chain.root.write_bytes(CONFIG, yaml.safe_dump(values, sort_keys=False).encode())

    def embed_part(self, shards: range) -> Manifest | Unfinished:
        """Embed some of the shards into the run's output, which several processes fill.

        Raises:
            ConfigError: no shard has these numbers, or the run embeds what it packed, as a whole.
            ArtifactError: the model is missing or made from another config, or another result stands in the output.
        """
        name = self.parted_stage()
        self.require_inputs(name)
        return self.part(self.chain.outputs[name], self.source, shards, self.chain.root)

    def work(self, stage: str) -> Work:
        """Return what a stage is run with."""
        return self.stage_run(stage).work(self.chain.outputs[stage], self.source, {})

    def _work(self, output: Output) -> Manifest:
        return self.stage_run(output.stage).whole(output, self.source, {})

    def _standing_metrics(self) -> dict[str, Any] | None:
        """Return ``metrics.json`` if it is of these very artifacts and config, and the report stands beside it."""
        root = self.chain.root
        if not all(root.has(name) for name in (METRICS, CONFIG, PAGE)):
            return None
        try:
            metrics = root.read_json(METRICS)
            written = yaml.safe_load(root.read_bytes(CONFIG))
        except (ValueError, yaml.YAMLError):
            return None
        told = self.config.model_dump(mode="json", exclude=set(UNTOLD))
        if {key: value for key, value in written.items() if key not in UNTOLD} != told:
            return None
        is_ours = isinstance(metrics, dict) and metrics.get("fingerprint") == self.chain.last.fingerprint
        return metrics if is_ours else None


def run(config: RunConfig, engine: Engine, observer: Observer) -> dict[str, Any]:
    """Run the whole pipeline and return its metrics; the engine is closed at the end.

    Raises:
        DistSpectralError: what the config checks and the stages raise.
    """
    from distspectral.config import check

    source = Source.open(config.data)
    check(config, source)
    pipeline = Pipeline(config, source, engine, observer)
    try:
        if config.mlflow is None:
            return pipeline.run()
        from distspectral.orchestration.tracking import MlflowObserver

        with (
            pipeline.held(),
            MlflowObserver(observer, config.mlflow, config.name, config.model_dump(mode="json")) as tracked,
        ):
            pipeline.observe(tracked)
            metrics = pipeline.run()
            tracked.results(metrics)
            return metrics
    finally:
        engine.close()

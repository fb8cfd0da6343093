"""The order of the stages: what is current is skipped, what is not runs, and the root then says how it went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import yaml

from distspectral.errors import ConfigError, ShardWidthError, UnknownColumnError
from distspectral.orchestration.chain import Chain
from distspectral.orchestration.engine import Engine
from distspectral.orchestration.gauges import MetricsObserver
from distspectral.orchestration.observer import Observer
from distspectral.orchestration.stage_run import StageRun
from distspectral.recipes import Recipe
from distspectral.report.metrics import run_metrics
from distspectral.stages.cluster import CLUSTER
from distspectral.stages.finished_run import CONFIG, METRICS, PAGE
from distspectral.stages.known import as_begun, knowing
from distspectral.stages.pack import PACK
from distspectral.stages.stage import Work
from distspectral.stages.trial import TRIAL
from distspectral.storage.artifact.directory import MANIFEST, Artifact
from distspectral.storage.artifact.holding import Hold
from distspectral.storage.artifact.manifest import Manifest
from distspectral.storage.artifact.output import SOURCE, Output
from distspectral.storage.filesystems import absolute
from distspectral.storage.rows.frame import Frame
from distspectral.storage.source.dataset import Source

if TYPE_CHECKING:
    from distspectral.config import RunConfig
    from distspectral.stages.stage import Unfinished

UNTOLD = ("root", "ray", "storage", "mlflow")
"""Of a config: what neither metrics nor report depend on."""


class Pipeline:
    """One run: its config, its opened data, its chain of stages, and the engine that does the work.

    Args:
        config: the run, checked.
        source: its opened data.
        engine: does the stages' work; nothing is asked of it while all stages are current.
        observer: hears how it goes on.
    """

    def __init__(self, config: RunConfig, source: Source, engine: Engine, observer: Observer) -> None:
        self._source: Source | None = source
        self._open(config, engine)
        self._shape(source.dim, source.n_rows)
        self.chain = self._chain(source.fingerprint())
        self.observe(observer)

    @classmethod
    def finished(cls, config: RunConfig, engine: Engine, observer: Observer, *, as_told: bool = False) -> Self:
        """Return a finished run, known by its artifacts, for :meth:`report` and to embed other rows.

        Args:
            config: as the run's root holds it; what was trained on need not be there.
            engine: does the work.
            observer: hears how it goes on.
            as_told: whether its model has to be the one that this very config makes of the rows packed.

        Raises:
            ArtifactError: a stage is missing, or made from another one than the one that stands there.
        """
        self = cls.__new__(cls)
        self._source = None
        self._open(config, engine)
        packed = self._root.child(PACK.folder).manifest()
        self._shape(packed.properties["dim"], packed.n_rows)
        if as_told:
            self.chain = self._chain(packed.inputs[SOURCE])
        else:
            self._decide({TRIAL.name: self._root.child(TRIAL.folder)})
            self.chain = Chain.standing(self.recipe, self._root, self._settings)
        self.observe(observer)
        return self

    def _open(self, config: RunConfig, engine: Engine) -> None:
        self.config, self.engine = config, engine
        # absolute, for workers may have another working directory
        self._root = Artifact(absolute(config.root), config.storage.node_cache)
        self._hold = Hold(self._root, f"run `{config.name}`")

    def _shape(self, dim: int, n_rows: int) -> None:
        self.recipe = as_begun(self.config.recipe(dim, n_rows))
        self._settings: Mapping[str, Any] = self.config.settings(self.recipe)

    @property
    def source(self) -> Source:
        """The run's own data."""
        assert self._source is not None, "a finished run is reported on, or embeds other rows"
        return self._source

    def observe(self, observer: Observer) -> None:
        """Let another observer hear how it goes on."""
        self.observer = observer
        self._events = MetricsObserver(observer, self.config.name, self.chain.last.fingerprint)

    def _chain(self, source: str) -> Chain:
        """Return the chain of the run, the one that its trial decided on if that stands."""
        chain = self._chain_so_far(source)
        tried = chain.outputs.get(TRIAL.name)
        if tried is None or not tried.artifact.is_current(tried.fingerprint):
            return chain
        self._decide({TRIAL.name: tried.artifact})
        return self._chain_so_far(source)

    def _decide(self, artifacts: Mapping[str, Artifact]) -> None:
        """Take the recipe that finished artifacts decide on."""
        self.recipe = knowing(self.recipe, artifacts)
        self._settings = self.config.settings(self.recipe)

    def _chain_so_far(self, source: str) -> Chain:
        starts = {stage: Artifact(uri).manifest().fingerprint for stage, uri in self.recipe.starts.items()}
        if self.recipe.follows is not None:
            clusters = Artifact(self.recipe.follows).child(CLUSTER.folder)
            if clusters.has(MANIFEST):
                starts[CLUSTER.name] = clusters.manifest().fingerprint
        return Chain.of(self.recipe, self._root, source, self._settings, {**starts, **self.recipe.given()})

    # ---- the whole -----------------------------------------------------------------------------------------

    def run(self) -> dict[str, Any]:
        """Bring every stage up to date, then write ``metrics.json`` and the report; return the metrics.

        What stands already is not written to, so that its directory may be another process's at this moment.

        Raises:
            DirectoryHeldError: another process writes the run's directory.
        """
        if not self._due() and (metrics := self._standing_metrics()) is not None:
            for name in self.chain.outputs:
                self._events.skipped(name)
            return metrics
        with self.held():
            self._write_config()
            first = list(self.chain.outputs)[: list(self.chain.outputs).index(TRIAL.name) + 1] if self._is_open else []
            self._bring_up_to_date(first)
            if first:
                self.chain = self._chain(self.source.fingerprint())
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
                self._events.skipped(name)

    def held(self) -> Hold:
        """Return the context in which this process alone writes the run's directory; it may be entered again."""
        return self._hold

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
        if self._skips(output):
            return output.artifact.manifest()
        self._require_inputs(name)
        with self.held():
            if self._skips(output):  # by now
                return output.artifact.manifest()
            output.forget_damaged()
            self._write_config()
            self.engine.start([self.chain.stages[name]], self.source.n_values)
            return self._work(output)

    def _write_config(self) -> None:
        values = self.config.model_dump(mode="json", exclude={"mlflow"})  # which may be reached by a secret
        self._root.write_bytes(CONFIG, yaml.safe_dump(values, sort_keys=False).encode())

    def embed_other(self, source: Source, directory: str) -> Manifest:
        """Embed other rows with this run's finished model, whatever has become of the rows it was trained on.

        Args:
            source: the other rows, opened.
            directory: local path or URI of their output.

        Raises:
            ArtifactError: the model is missing or made from another config.
            ShardWidthError: the rows have another width than those trained on.
            UnknownColumnError: their columns are others, or in another order.
        """
        self.chain = self._chain_as_trained()
        self._require_kind(source)
        passage = self.recipe.passage
        if PACK.name in passage:  # in the frame of the rows trained on
            self._require_inputs(passage[-1], passage)
            frame = self.chain.artifacts["train"].manifest().properties["frame"]
            source = source.framed(Frame.of_properties(frame))
        prints = {SOURCE: source.fingerprint()}
        made: dict[str, Artifact] = {}
        for name in passage:
            self._require_inputs(name, passage)
        self._hold = Hold(Artifact(directory), self._hold.work)
        with self.held():
            for name in passage:
                folder = Artifact(directory)
                if len(passage) > 1:
                    folder = folder.child(self.chain.stages[name].folder)
                output = self.chain.of_other_rows(name, prints, folder)
                if self._skips(output):
                    manifest = output.artifact.manifest()
                else:
                    self.engine.start([self.chain.stages[name]], source.n_values)
                    manifest = self._work(output, source, made)
                prints[name], made[name] = output.fingerprint, output.artifact
        return manifest

    def embed_part(
        self, shards: range, source: Source | None = None, directory: str | None = None
    ) -> Manifest | Unfinished:
        """Embed some of the shards, this run's or other rows', into an output that several processes fill.

        Args:
            shards: their numbers.
            source: the other rows, opened.
            directory: of the other rows' output.

        Raises:
            ConfigError: no shard has these numbers, or the run embeds what it packed, as a whole.
            ArtifactError: the model is missing or made from another config, or another result stands in the output.
            ShardWidthError: the other rows have another width than those trained on.
            UnknownColumnError: their columns are others, or in another order.
        """
        name = self.recipe.passage[-1]
        if self.chain.stages[name].run_part is None:
            raise ConfigError("--shard-range: is for objective spectral; a metric embeds what `pack` wrote, as a whole")
        if source is None or directory is None:
            self._require_inputs(name)
            source, output = self.source, self.chain.outputs[name]
            held = self._root
        else:
            self.chain = self._chain_as_trained()
            self._require_kind(source)
            self._require_inputs(name)
            output = self.chain.of_other_rows(name, {SOURCE: source.fingerprint()}, Artifact(directory))
            held = output.artifact
        if self._skips(output):
            return output.artifact.manifest()
        self._hold = Hold(held, self._hold.work, shared=True)
        with self.held():
            self.engine.start([self.chain.stages[name]], source.n_values)
            return self._stage_run(name).part(output, source, shards)

    def report(self, figures: bool = False) -> dict[str, Any]:
        """Write ``metrics.json`` and ``report.html``; return the metrics.

        Args:
            figures: write the page's pictures as files, too.

        Raises:
            ArtifactError: a stage has not been run, or with another config.
            ConfigError: figures are asked for of a run without a graph.
        """
        manifests = {name: self.chain.require(name) for name in self.chain.outputs}
        with self.held():
            return self._report(manifests, figures)

    def _report(self, manifests: Mapping[str, Manifest], figures: bool = False) -> dict[str, Any]:
        metrics = run_metrics(self.config.name, self.chain.stages, manifests)
        from distspectral.report.collect import write_report

        config, stages, artifacts = self.config.model_dump(mode="json"), self.chain.stages, self.chain.artifacts
        recipe = self._knowing_recipe()
        verdict = write_report(self._root, config, recipe, stages, metrics, artifacts, manifests, figures)
        if verdict is not None:
            metrics["verdict"] = verdict
        self._root.write_json(METRICS, metrics)
        return metrics

    # ---- one stage -----------------------------------------------------------------------------------------

    def _skips(self, output: Output) -> bool:
        """Whether the output stands already, which the observer is then told."""
        if not output.artifact.is_current(output.fingerprint):
            return False
        self._events.skipped(output.stage)
        return True

    def _require_inputs(self, stage: str, others: Sequence[str] = ()) -> None:
        """Refuse a stage whose inputs, but for the ``others``, are missing or made from another config."""
        for name in (one for one in self.chain.inputs(stage) if one not in others):
            self.chain.require(name)

    def _require_kind(self, source: Source) -> None:
        """Refuse other rows of another width or of other columns before a cluster is asked for."""
        if source.dim != self.recipe.dim:
            raise ShardWidthError(
                f"{source.shards[0].uri}: rows have width {source.dim}, the run {self._root.uri} was trained on "
                f"{self.recipe.dim}; embed rows of the same kind"
            )
        self._require_features(source)

    def _require_features(self, source: Source) -> None:
        """Refuse other rows whose columns, one for each feature, are others; a list may give them other names."""
        vectors = self.chain.artifact("pack")
        known = vectors.manifest().properties.get("features") if vectors.has(MANIFEST) else None
        if not known or not source.features or list(source.features) == known:
            return
        if isinstance(source.config.column, str) or sorted(source.features) == sorted(known):
            pairs = enumerate(zip(source.features, known, strict=True))
            place, (found, expected) = next((place, pair) for place, pair in pairs if pair[0] != pair[1])
            raise UnknownColumnError(
                f"{source.shards[0].uri}: feature {place} is column {found!r}, the run {self._root.uri} was trained on "
                f"{expected!r} there; rename the columns as they were, or, where they only have other names, list all "
                f"{len(known)} in the order trained on: --set 'data.column=[A, B, ...]'"
            )

    def work(self, stage: str) -> Work:
        """Return what a stage is run with."""
        return self._stage_run(stage).work(self.chain.outputs[stage], self.source, {})

    def _work(
        self, output: Output, source: Source | None = None, made: Mapping[str, Artifact] | None = None
    ) -> Manifest:
        """Run a stage, on other rows if given."""
        return self._stage_run(output.stage).whole(output, source or self.source, made or {})

    def _stage_run(self, stage: str) -> StageRun:
        recipe = self._knowing_recipe()
        return StageRun(
            self.chain.stages[stage], self.chain, recipe, self._settings, self.engine, self._events, self._hold
        )

    def _knowing_recipe(self) -> Recipe:
        """Return the recipe, knowing what the artifacts tell."""
        return knowing(self.recipe, self.chain.artifacts)

    def _chain_as_trained(self) -> Chain:
        """Return the chain of when the vectors were packed: the source may have gained shards since."""
        vectors = self.chain.artifact("pack")
        if self._source is None or not vectors.has(MANIFEST):
            return self.chain
        packed = vectors.manifest()
        self._shape(self.source.dim, packed.n_rows)
        return self._chain(packed.inputs[SOURCE])

    def _standing_metrics(self) -> dict[str, Any] | None:
        """Return ``metrics.json`` if it is of these very artifacts and config, and the report stands beside it."""
        root = self._root
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

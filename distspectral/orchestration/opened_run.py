"""A run at hand: its config, the chain of its stages, and the engine that does their work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from distspectral.errors import ConfigError
from distspectral.orchestration.chain import Chain
from distspectral.orchestration.engine import Engine
from distspectral.orchestration.gauges import MetricsObserver
from distspectral.orchestration.observer import Observer
from distspectral.orchestration.stage_run import StageRun
from distspectral.recipes import Recipe
from distspectral.report.metrics import run_metrics
from distspectral.stages.cluster import CLUSTER
from distspectral.stages.finished_run import METRICS
from distspectral.stages.known import as_begun, knowing
from distspectral.stages.pack import PACK
from distspectral.stages.trial import TRIAL
from distspectral.storage.artifact.directory import MANIFEST, Artifact
from distspectral.storage.artifact.holding import Hold
from distspectral.storage.artifact.manifest import Manifest
from distspectral.storage.artifact.output import SOURCE, Output
from distspectral.storage.filesystems import absolute
from distspectral.storage.source.dataset import Source

if TYPE_CHECKING:
    from distspectral.config import RunConfig
    from distspectral.stages.stage import Unfinished


class OpenedRun:
    """What a run is and who works on it, and what is alike whatever is done with it.

    Args:
        config: the run, checked.
        engine: does the stages' work; nothing is asked of it while all stages are current.
        observer: hears how it goes on.
        recipe: which stages, as far as is decided.
        chain: of these stages.
    """

    def __init__(self, config: RunConfig, engine: Engine, observer: Observer, recipe: Recipe, chain: Chain) -> None:
        self.config, self.engine = config, engine
        self._hold = Hold(chain.root, f"run `{config.name}`")
        self.recipe, self.chain = recipe, chain
        self.observe(observer)

    def observe(self, observer: Observer) -> None:
        """Let another observer hear how it goes on."""
        self.observer = observer
        self.events = MetricsObserver(observer, self.config.name, self.chain.last.fingerprint)

    def held(self) -> Hold:
        """Return the context in which this process alone writes the run's directory; it may be entered again."""
        return self._hold

    def skips(self, output: Output) -> bool:
        """Whether the output stands already, which the observer is then told."""
        if not output.artifact.is_current(output.fingerprint):
            return False
        self.events.skipped(output.stage)
        return True

    def require_inputs(self, stage: str, others: Sequence[str] = ()) -> None:
        """Refuse a stage whose inputs, but for the ``others``, are missing or made from another config.

        Raises:
            ArtifactError: one is.
        """
        for name in (one for one in self.chain.inputs(stage) if one not in others):
            self.chain.require(name)

    def stage_run(self, stage: str, hold: Hold | None = None) -> StageRun:
        """Return what runs a stage, into a directory that another hold is on, if given."""
        return StageRun(
            self.chain.stages[stage],
            self.chain,
            self._knowing_recipe(),
            self.config.settings(self.recipe),
            self.engine,
            self.events,
            hold or self._hold,
        )

    def parted_stage(self) -> str:
        """Return the name of the stage that embeds shard by shard.

        Raises:
            ConfigError: the run has none.
        """
        name = self.recipe.passage[-1]
        if self.chain.stages[name].run_part is None:
            raise ConfigError("--shard-range: is for objective spectral; a metric embeds what `pack` wrote, as a whole")
        return name

    def part(self, output: Output, source: Source, shards: range, shared: Artifact) -> Manifest | Unfinished:
        """Do some of the shards of an output that several processes fill, which share a directory while they do."""
        if self.skips(output):
            return output.artifact.manifest()
        with Hold(shared, self._hold.work, shared=True) as hold:
            self.engine.start([self.chain.stages[output.stage]], source.n_values)
            return self.stage_run(output.stage, hold).part(output, source, shards)

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

    def _report(self, manifests: Mapping[str, Manifest], figures: bool) -> dict[str, Any]:
        metrics = run_metrics(self.config.name, self.chain.stages, manifests)
        from distspectral.report.collect import write_report

        config, root, stages = self.config.model_dump(mode="json"), self.chain.root, self.chain.stages
        recipe, artifacts = self._knowing_recipe(), self.chain.artifacts
        metrics |= write_report(root, config, recipe, stages, metrics, artifacts, manifests, figures)
        root.write_json(METRICS, metrics)
        return metrics

    def _knowing_recipe(self) -> Recipe:
        """Return the recipe, knowing what the artifacts tell."""
        return knowing(self.recipe, self.chain.artifacts)


def finished_run(config: RunConfig, engine: Engine, observer: Observer, *, as_told: bool = False) -> OpenedRun:
    """Return a finished run, known by its artifacts, to report on and to embed other rows with.

    Args:
        config: as the run's root holds it; what was trained on need not be there.
        engine: does the work.
        observer: hears how it goes on.
        as_told: whether its model has to be the one that this very config makes of the rows packed.

    Raises:
        ArtifactError: a stage is missing, or made from another one than the one that stands there.
    """
    root = _root(config)
    packed = root.child(PACK.folder).manifest()
    dim, n_rows = packed.properties["dim"], packed.n_rows
    if as_told:
        recipe, chain = decided(config, dim, n_rows, packed.inputs[SOURCE])
    else:
        recipe = knowing(as_begun(config.recipe(dim, n_rows)), {TRIAL.name: root.child(TRIAL.folder)})
        chain = Chain.standing(recipe, root, config.settings(recipe))
    return OpenedRun(config, engine, observer, recipe, chain)


def decided(config: RunConfig, dim: int, n_rows: int, source: str) -> tuple[Recipe, Chain]:
    """Return a run's recipe and chain as the config tells them, and its trial, if that stands.

    Args:
        config: the run, checked.
        dim: D, features of a row.
        n_rows: N.
        source: fingerprint of the rows.
    """
    recipe = as_begun(config.recipe(dim, n_rows))
    chain = _chain(config, recipe, source)
    tried = chain.outputs.get(TRIAL.name)
    if tried is None or not tried.artifact.is_current(tried.fingerprint):
        return recipe, chain
    recipe = knowing(recipe, {TRIAL.name: tried.artifact})
    return recipe, _chain(config, recipe, source)


def _chain(config: RunConfig, recipe: Recipe, source: str) -> Chain:
    starts = {stage: Artifact(uri).manifest().fingerprint for stage, uri in recipe.starts.items()}
    if recipe.follows is not None:
        clusters = Artifact(recipe.follows).child(CLUSTER.folder)
        if clusters.has(MANIFEST):
            starts[CLUSTER.name] = clusters.manifest().fingerprint
    return Chain.of(recipe, _root(config), source, config.settings(recipe), {**starts, **recipe.given()})


def _root(config: RunConfig) -> Artifact:
    # absolute, for workers may have another working directory
    return Artifact(absolute(config.root), config.storage.node_cache)

"""What each stage's function is called with: its inputs among the artifacts, its part of the config, its hands."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from distspectral.mapping import Mapper
from distspectral.orchestration.config import RayStage
from distspectral.orchestration.engine import Engine
from distspectral.orchestration.observer import Observer
from distspectral.orchestration.stragglers import Timed, Timing, report
from distspectral.stages.plan import Plan
from distspectral.storage.artifact.directory import MANIFEST, Artifact
from distspectral.storage.artifact.manifest import Manifest
from distspectral.storage.artifact.output import Output
from distspectral.storage.source.dataset import Source

if TYPE_CHECKING:
    from distspectral.config import RunConfig
    from distspectral.models.encoded import Space
    from distspectral.stages.embed import Unfinished
    from distspectral.training.settings import TrainSettings


class StageCalls:
    """A method for each stage of any chain, by the stage's name; its function's module is imported only then.

    Args:
        config: the run.
        plan: its artifacts.
        engine: does the work.
        observer: hears of items done and of windows of training.
        source: the rows that are packed and embedded.
        vectors: the same, packed.
    """

    def __init__(
        self, config: RunConfig, plan: Plan, engine: Engine, observer: Observer, source: Source, vectors: Artifact
    ) -> None:
        self.config, self.plan, self.engine, self.observer = config, plan, engine, observer
        self.source, self.vectors = source, vectors

    def __call__(self, stage: str, output: Output) -> Manifest:
        """Do a stage's work."""
        done: Manifest = getattr(self, stage)(output)
        return done

    def pack(self, output: Output) -> Manifest:
        """Write the source's rows as memory-mappable vectors."""
        from distspectral.stages.pack import pack

        return pack(self.source, output, self.config.pack, self._tasks("pack"))

    def autoencoder(self, output: Output) -> Manifest:
        """Train the autoencoder."""
        return self._train((self.vectors,), None, output, self.config.autoencoder_settings)

    def codes(self, output: Output) -> Manifest:
        """Encode all rows."""
        from distspectral.stages.learned import encode_codes

        autoencoder, device = self.plan.artifact("autoencoder"), self.config.autoencoder.device
        return encode_codes(self.vectors, autoencoder, output, device, self._actors("encode"))

    def neighbors(self, output: Output) -> Manifest:
        """Search the neighbours of the rows, or of their codes."""
        return self._neighbors(self._represented(), output)

    def graph(self, output: Output) -> Manifest:
        """Weigh the edges."""
        return self._affinities("neighbors", output)

    def siamese(self, output: Output) -> Manifest:
        """Train the Siamese network on the graph's edges."""
        return self._train((self._represented(),), self.plan.artifact("graph"), output, self.config.siamese_settings)

    def features(self, output: Output) -> Manifest:
        """Map all rows by the Siamese network."""
        from distspectral.stages.learned import encode_features

        siamese, device = self.plan.artifact("siamese"), self.config.siamese.device
        return encode_features(self._represented(), siamese, output, device, self._actors("encode"))

    def reweight(self, output: Output) -> Manifest:
        """Weigh the same edges by Siamese distances."""
        from distspectral.stages.reweight import reweight

        return reweight(self.plan.artifact("graph"), self.plan.artifact("features"), output, self._tasks("graph"))

    def siamese_neighbors(self, output: Output) -> Manifest:
        """Search neighbours among the Siamese features."""
        return self._neighbors(self.plan.artifact("features"), output)

    def siamese_graph(self, output: Output) -> Manifest:
        """Weigh the edges between those."""
        return self._affinities("siamese_neighbors", output)

    def train(self, output: Output) -> Manifest:
        """Train the eigenfunctions, or the metric."""
        if self.config.objective == "dscl":
            return self._train((self.vectors,), None, output, self.config.dscl_settings)
        seen, graph = tuple(self._seen().values()), self.plan.artifact(self.plan.graph)
        return self._train(seen, graph, output, self.config.spectral_settings)

    def calibrate(self, output: Output) -> Manifest:
        """Rotate the functions into eigenfunctions by one pass over all edges."""
        from distspectral.stages.calibrate import calibrate

        seen = self._seen()
        inputs = tuple(seen.values()), self.plan.artifact(self.plan.graph), self.plan.artifact("train")
        encoders = self._encoders(tuple(seen))
        return calibrate(*inputs, output, self.config.spectral_settings, self._tasks("calibrate"), encoders)

    def cluster(self, output: Output) -> Manifest:
        """Find centroids in the embedding of a sample."""
        from distspectral.stages.cluster import cluster

        return cluster(self.vectors, self.plan.artifact("calibrate"), output, self.config.cluster, self.config.seed)

    def embed(self, output: Output) -> Manifest:
        """Embed the source's rows."""
        from distspectral.stages.embed import embed

        return embed(self.source, *self._models(), output, self.config.embed, self._actors("embed"), self._trained_on())

    def embed_part(self, output: Output, shards: range) -> Manifest | Unfinished:
        """Embed some of the source's shards."""
        from distspectral.stages.embed import embed_part

        actors = self._actors("embed")
        return embed_part(self.source, *self._models(), output, self.config.embed, shards, actors, self._trained_on())

    def encode(self, output: Output) -> Manifest:
        """Embed the packed rows by the metric."""
        from distspectral.stages.embed_metric import embed_metric

        trained = self.plan.artifact("train")
        return embed_metric(self.vectors, trained, output, self.config.dscl_settings, self._actors("encode"))

    def evaluate(self, output: Output) -> Manifest:
        """Judge the metric by classes not learned from."""
        from distspectral.stages.evaluate import evaluate_retrieval

        encoded, tasks = self.plan.artifact("encode"), self._tasks("evaluate")
        return evaluate_retrieval(encoded, output, self.config.evaluate, self.config.seed, tasks)

    # ---- inputs --------------------------------------------------------------------------------------------

    def _represented(self) -> Artifact:
        """Return the vectors that neighbours are searched in: the codes, or the rows as they are."""
        from distspectral.stages.learned import prefers_codes

        if "codes" not in self.plan.chain:
            return self.plan.artifact("pack")
        codes = self.plan.artifact("codes")
        is_coded = self.config.representation == "code" or prefers_codes(
            codes.manifest().properties["explained_variance"]
        )
        return codes if is_coded else self.plan.artifact("pack")

    def _seen(self) -> dict[Space, Artifact]:
        """Return the vectors that the network is trained on, by what they are, in their order."""
        represented, packed = self._represented(), self.plan.artifact("pack")
        made: dict[Space, Artifact] = {"vector" if represented == packed else "code": represented}
        if "features" in self.plan.chain:
            made["siamese"] = self.plan.artifact("features")
        wanted = self.config.train.inputs
        if wanted == "auto":
            return made
        made.setdefault("vector", packed)
        return {space: made[space] for space in wanted}

    def _encoders(self, seen: tuple[Space, ...]) -> dict[str, Any]:
        """Return what an embedding of raw rows needs before the trained network."""
        from distspectral.stages.learned import load_encoder, load_siamese

        encoders: dict[str, Any] = {"inputs": seen}
        is_coded = self._represented() != self.plan.artifact("pack")
        if "code" in seen or ("siamese" in seen and is_coded):
            encoders["encoder"] = load_encoder(self.plan.artifact("autoencoder"))
        if "siamese" in seen:
            encoders["siamese"] = load_siamese(self.plan.artifact("siamese"))
        return encoders

    def _models(self) -> tuple[Artifact, Artifact]:
        return self.plan.artifact("calibrate"), self.plan.artifact("cluster")

    def _trained_on(self) -> Artifact | None:
        """Return the vectors trained on, if the source's rows are others and can be compared with them."""
        vectors = self.plan.artifact("pack")
        return vectors if self.source.fingerprint() != self.plan.source and vectors.has(MANIFEST) else None

    # ---- hands ---------------------------------------------------------------------------------------------

    def _neighbors(self, rows: Artifact, output: Output) -> Manifest:
        from distspectral.stages.graph import neighbors

        return neighbors(rows, output, self.config.graph, self._tasks("neighbors"))

    def _affinities(self, neighbors: str, output: Output) -> Manifest:
        from distspectral.stages.graph import affinities

        return affinities(self.plan.artifact(neighbors), output, self.config.affinity, self._tasks("graph"))

    def _tasks(self, stage: RayStage) -> Mapper:
        return self._watched(self.engine.tasks(stage))

    def _actors(self, stage: RayStage) -> Mapper:
        return self._watched(self.engine.actors(stage))

    def _watched(self, mapper: Mapper) -> Mapper:
        """Return the mapper, reporting each item to the observer, and at the end those that took far too long."""

        def mapped(function: Callable[[Any], Any], items: Sequence[Any], description: str) -> Iterator[Any]:
            self.observer.progress(description, 0, len(items))
            timings: list[Timing] = []
            for timing, result in mapper(Timed(function), items, description):
                timings.append(timing)
                self.observer.progress(description, len(timings), len(items))
                yield result
            report(timings, description)

        return mapped

    def _train(
        self, vectors: tuple[Artifact, ...], graph: Artifact | None, output: Output, settings: TrainSettings
    ) -> Manifest:
        """Train whatever the settings say, reporting each window to the observer."""

        def on_window(record: dict[str, Any]) -> None:
            self.observer.progress("training", record["step"], settings.train.max_steps)
            self.observer.window(record)

        return self.engine.train(vectors, graph, output, settings, on_window)

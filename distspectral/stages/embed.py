"""Every row's coordinates, cluster and distance: output shard i holds source shard i's rows in order."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

import numpy as np
import torch
from pydantic import Field, NonNegativeInt, PositiveInt, field_validator
from torch import Tensor, nn

from distspectral.costs.bill import Bill
from distspectral.embedding.columns import (
    DEFAULT_COLUMNS,
    MEANINGS,
    OF_MAP,
    Column,
    RowColumns,
    columns_of,
    refuse_clashes,
)
from distspectral.embedding.drift import measure_drift
from distspectral.embedding.loading import Loader
from distspectral.embedding.scores import evaluate, frequent_labels
from distspectral.embedding.shard import embed_shard
from distspectral.embedding.stream import busy_seconds, held_bytes
from distspectral.errors import ConfigError
from distspectral.frozen import FrozenModel
from distspectral.mapping import Mapper, local_map
from distspectral.models.embedder import Embedder, Precision
from distspectral.models.networks import torch_device
from distspectral.stages.calibrate import load_calibrated_network
from distspectral.stages.encoding import forward_piece
from distspectral.stages.map import load_map
from distspectral.stages.stage import Manifests, Piece, Stage, Unfinished, Work
from distspectral.stages.tree_files import load_leaves, load_outliers
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.artifact.manifest import Manifest, Shard
from distspectral.storage.artifact.output import SOURCE, Output
from distspectral.storage.artifact.quarantine import quarantine_files, quarantine_metrics
from distspectral.storage.artifact.receipts import read_receipts
from distspectral.storage.rows.frame import Frame
from distspectral.storage.source.dataset import Source
from distspectral.storage.source.shards import DECODED_BYTES


class EmbedConfig(FrozenModel):
    """How rows stream through the model (YAML section ``embed``)."""

    columns: Literal["auto"] | tuple[Column, ...] = Field(
        "auto",
        min_length=1,
        description=f"what is written beside the id; auto = {', '.join(DEFAULT_COLUMNS)}, x and y of a run with a map. "
        + "; ".join(f"{column}: {meaning}" for column, meaning in MEANINGS.items()),
    )
    n_nearest: PositiveInt = Field(3, description="clusters in the column nearest_clusters")
    precision: Precision = Field(
        "float32",
        description="of the network's matrix products; float32 gives a row the same cluster on every machine, and "
        "reading holds a GPU up long before it does; halves are for wide encoders on GPUs",
    )
    batch_rows: PositiveInt = Field(
        16_384, description="rows that pass the network at a time; a few such are in memory"
    )
    drift_rows: NonNegativeInt = Field(
        2_000, description="rows of other data that are compared with the training data, to warn of a shift; 0 = none"
    )

    @field_validator("columns")
    @classmethod
    def _name_each_once(cls, columns: Literal["auto"] | tuple[Column, ...]) -> Literal["auto"] | tuple[Column, ...]:
        if columns != "auto" and len(set(columns)) < len(columns):
            raise ValueError(f"names a column twice ({', '.join(columns)}); name each once")
        return columns


@dataclasses.dataclass(frozen=True)
class Models:
    """Finished artifacts by which a row gets its coordinates, cluster, leaf and place on the map.

    Attributes:
        model: the network, calibrated.
        clusters: centroids.
        tree: leaves and outliers.
        map: None where the run has none, or nobody asks for places.
    """

    model: Artifact
    clusters: Artifact
    tree: Artifact
    map: Artifact | None = None

    @classmethod
    def of(cls, artifacts: Mapping[str, Artifact]) -> Self:
        """Return those of a run, given by stage."""
        return cls(artifacts["calibrate"], artifacts["cluster"], artifacts["tree"], artifacts.get("map"))

    @property
    def identity(self) -> tuple[str, ...]:
        """Where they lie and what they are."""
        made = [one for one in (self.model, self.clusters, self.tree, self.map) if one is not None]
        return (*(one.uri for one in made), *(one.manifest().fingerprint for one in made))

    def for_columns(self, columns: Sequence[Column]) -> Self:
        """Return them without the map, unless a column is one of its."""
        return self if set(OF_MAP) & set(columns) else dataclasses.replace(self, map=None)

    def embedder(self, precision: Precision = "float32") -> Embedder:
        """Return all of them as one module, on the CPU."""
        map_network = None if self.map is None else load_map(self.map)
        network, assigner = load_calibrated_network(self.model), load_leaves(self.clusters, self.tree)
        return Embedder(network, assigner, precision, load_outliers(self.tree), map_network)


def embed(
    source: Source,
    models: Models,
    output: Output,
    config: EmbedConfig,
    mapper: Mapper = local_map,
    training: Artifact | None = None,
) -> Manifest:
    """Write one Parquet shard per source shard, a file or a piece of a large one, with the columns asked for.

    Rows that ``data.on_bad_rows`` leaves out are missing there, too, and kept beside the shards instead. Shards of a
    finished output that differ in nothing are kept where only the list of source shards has changed.

    Args:
        source: the rows to embed, those trained on or others of their width.
        models: that place a row.
        output: where the artifact ``output`` goes.
        config: what to write and how.
        mapper: hands out the shards that are still missing.
        training: finished ``vectors`` artifact of the rows trained on; given, a sample of the rows embedded now is
            compared with it.

    Raises:
        SourceError: a row cannot be used.
        ConfigError: a carried column has the name of one of ours, or a column of the map is asked for without one.
    """
    work = _Embedding(source, models, output, config, training)
    done = output.begin(work.items)
    metrics = work.do(done, range(len(source.shards)), mapper)
    return work.finish(done, metrics)


def embed_part(
    source: Source,
    models: Models,
    output: Output,
    config: EmbedConfig,
    shards: range,
    mapper: Mapper = local_map,
    training: Artifact | None = None,
) -> Manifest | Unfinished:
    """Embed some of the shards into an output that several processes fill; finish it if no shard is missing then.

    Args:
        source: see :func:`embed`, as all others.
        models: likewise.
        output: the same for all processes.
        config: likewise.
        shards: numbers of the source shards to embed; beyond the last one they are none.
        mapper: hands out those still missing.
        training: see :func:`embed`.

    Raises:
        ConfigError: no shard has these numbers.
        FingerprintMismatchError: another result stands in the output's directory.
    """
    n_shards = len(source.shards)
    if not range(n_shards)[shards.start : shards.stop]:
        raise ConfigError(
            f"--shard-range {shards.start}:{shards.stop}: names no shard; the source has 0 to {n_shards - 1}"
        )
    work = _Embedding(source, models, output, config, training)
    metrics = work.do(output.begin(shared=True), range(n_shards)[shards.start : shards.stop], mapper)
    done = read_receipts(output.artifact)
    if all(name in done for name in work.items):
        return work.finish(done, metrics)
    if output.artifact.is_current(output.fingerprint):  # another process saw all of them, and has finished
        return output.artifact.manifest()
    return Unfinished(sum(name in done for name in work.items), n_shards, metrics)


class _Embedding:
    """What :func:`embed` and :func:`embed_part` share."""

    def __init__(
        self, source: Source, models: Models, output: Output, config: EmbedConfig, training: Artifact | None
    ) -> None:
        calibrated = models.model.manifest().properties
        source = source.framed(Frame.of_properties(calibrated["frame"])).carrying()
        refuse_clashes(source)
        self.source, self.output, self.config, self.training = source, output, config, training
        self.n_components = calibrated["n_components"]
        names = [f"part-{index:05d}.parquet" for index in range(len(source.shards))]
        self.items = dict(zip(names, source.shard_fingerprints(), strict=True))
        self.n_clusters = models.clusters.manifest().properties["n_clusters"]
        self.columns = columns_of(config.columns, models.map is not None)
        load = functools.partial(_row_columns, models.for_columns(self.columns), config, self.columns)
        self.loader = Loader((*models.identity, config.model_dump_json()), load)

    def do(self, done: dict[str, Shard], shards: range, mapper: Mapper) -> dict[str, Any]:
        """Embed those of the shards that are missing, add them to ``done``, return what was measured."""
        items = list(zip(self.items, self.source.shards, self.items.values(), strict=True))
        missing = [items[index] for index in shards if items[index][0] not in done]
        n_rows = sum(shard.n_rows for _, shard, _ in missing)
        share = min(1.0, self.config.drift_rows / n_rows) if missing and self.training is not None else 0.0
        task = functools.partial(
            embed_shard, self.source.reader, self.loader, "auto", self.output.artifact, self.config.batch_rows, share
        )
        samples = []
        for written in mapper(task, missing, "embedding", on_gpu=True):
            done[written.shard.name] = written.shard
            samples.append(written.sample)
        metrics: dict[str, Any] = {"embedded_shards": len(missing)}
        if self.training is not None and share and (rows := np.concatenate(samples)).size:
            metrics["drift"] = measure_drift(rows, self.training, self.loader.on(torch_device("auto")).embedder)
        return metrics

    def finish(self, done: dict[str, Shard], metrics: dict[str, Any]) -> Manifest:
        """Write the manifest of all shards."""
        shards = [done[name] for name in self.items]
        agreement = evaluate(shards, self.n_clusters)
        metrics["busy_seconds"] = busy_seconds(shards)
        if agreement is not None:
            metrics["agreement"] = agreement
        if self.source.config.on_bad_rows == "quarantine":
            metrics["quarantine"] = quarantine_metrics(shards)
        properties = {
            "n_components": self.n_components,
            "n_clusters": self.n_clusters,
            "columns": list(self.columns),
            "carried": self.source.carried.names,
        }
        return self.output.commit(shards, properties, metrics, quarantine_files(shards))


class _Passage(nn.Module):
    """All networks that a row passes, as one with one output."""

    def __init__(self, embedder: Embedder) -> None:
        super().__init__()
        self.embedder = embedder

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([part for part in self._parts(x) if part is not None], dim=1)

    def _parts(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        seen, embedding = self.embedder.seen_and_embedding(x)
        return embedding, self.embedder.places(seen, embedding)


def _row_columns(models: Models, config: EmbedConfig, columns: Sequence[Column]) -> RowColumns:
    return RowColumns(models.embedder(config.precision), columns, config.n_nearest)


def _run(work: Work) -> Manifest:
    models, config = Models.of(work.artifacts), work.settings["embed"]
    return embed(work.source, models, work.output, config, work.mapper, work.trained_on)


def _run_part(work: Work, shards: range) -> Manifest | Unfinished:
    models, config = Models.of(work.artifacts), work.settings["embed"]
    return embed_part(work.source, models, work.output, config, shards, work.mapper, work.trained_on)


def _cost(bill: Bill) -> None:
    columns = columns_of(bill.settings["embed"].columns, "map" in bill.recipe.chain)
    placed = ("map",) if set(OF_MAP) & set(columns) else ()
    trained = (*bill.recipe.encoders.values(), "train", *placed)
    us = bill.rates.read_us + bill.us("embedding")
    bill.through(trained, us, threads=math.inf)  # many decode what a GPU embeds
    bill.alone()
    bill.read, bill.written = bill.n_rows * bill.rates.source_bytes, bill.kept
    bill.worker_bytes += held_bytes(bill.settings["embed"].batch_rows, bill.recipe.dim, bill.widest(*trained))
    if bill.machines.gpu is not None:
        bill.worker_bytes += DECODED_BYTES


def _pieces(work: Work) -> dict[str, Piece]:
    models, config = Models.of(work.artifacts), work.settings["embed"]
    columns = columns_of(config.columns, models.map is not None)
    network = models.for_columns(columns).embedder(config.precision)
    return forward_piece(_Passage(network), (work.artifacts["pack"],))


def _facts(manifests: Manifests) -> dict[str, Any]:
    output = manifests["embed"]
    counts = np.sum([shard.details["cluster_counts"] for shard in output.shards], axis=0)
    facts: dict[str, Any] = {"clusters_found": int(np.count_nonzero(counts))}
    if "agreement" in output.metrics:
        labels = frequent_labels(output.shards, output.properties["n_clusters"])
        facts |= {"agreement": output.metrics["agreement"], "labels": labels}
    return facts


def _lines(facts: dict[str, Any]) -> dict[str, str]:
    if "agreement" not in facts:
        return {}
    return {"ACC / NMI / ARI": " / ".join(f"{facts['agreement'][name]:.3f}" for name in ("acc", "nmi", "ari"))}


def _notes(metrics: dict[str, Any]) -> list[str]:
    asked, found = metrics["cluster"]["n_clusters"], metrics["embed"]["clusters_found"]
    if found == asked:
        return []
    return [
        f"Only {found} of the {asked} clusters hold rows: the embedding tells no more apart. Ask for fewer, or keep "
        "more functions (spectral.n_components) or neighbours (graph.n_neighbors)."
    ]


EMBED = Stage(
    name="embed",
    folder="output",
    purpose="Embed and cluster every row.",
    done="embedded",
    inputs=lambda recipe: (SOURCE, "calibrate", "cluster", "tree", *(("map",) if "map" in recipe.chain else ())),
    sections=("embed", "data.carry"),
    harmless=("embed.batch_rows", "embed.drift_rows"),
    workers="actors",
    run=_run,
    cost=_cost,
    pieces=_pieces,
    run_part=_run_part,
    facts=_facts,
    lines=_lines,
    notes=_notes,
)

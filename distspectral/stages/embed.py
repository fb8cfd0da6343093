"""Every row's coordinates, cluster and distance: output shard i holds source shard i's rows in order."""

from __future__ import annotations

import functools
from collections import Counter
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from pydantic import BaseModel, ConfigDict, Field, PositiveInt
from torch import Tensor, nn

from distspectral.clusters import Assigner
from distspectral.errors import ShardWidthError
from distspectral.models.encoded import EncodedNetwork
from distspectral.models.networks import torch_device
from distspectral.stages.calibrate import load_calibrated_network
from distspectral.stages.cluster import load_assigner
from distspectral.stages.evaluate import evaluate
from distspectral.stages.mapping import Mapper, local_map
from distspectral.storage.artifacts import Artifact, Output
from distspectral.storage.columns import ARROW_TYPES
from distspectral.storage.manifest import Manifest, Shard
from distspectral.storage.quarantine import quarantine_files, quarantine_metrics, write_quarantine
from distspectral.storage.sources import ShardReader, Source, SourceShard


class EmbedConfig(BaseModel):
    """How rows stream through the model (YAML section ``embed``)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    batch_rows: PositiveInt = Field(16_384, description="rows in memory at a time, and of a Parquet row group at least")


class Embedder(nn.Module):
    """Raw vectors in; embedding, cluster and distance out.

    Args:
        network: calibrated.
        assigner: fitted in the network's embedding.
    """

    def __init__(self, network: EncodedNetwork, assigner: Assigner) -> None:
        super().__init__()
        self.network, self.assigner = network, assigner

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return embedding (B, P), cluster (B,) int64 and distance to its centroid (B,) of rows ``x`` (B, D)."""
        embedding = self.network(x)
        cluster, distance = self.assigner(embedding)
        return embedding, cluster, distance


def embed(
    source: Source,
    model: Artifact,
    clusters: Artifact,
    output: Output,
    config: EmbedConfig,
    mapper: Mapper = local_map,
) -> Manifest:
    """Write one Parquet shard per source shard with the columns id, embedding, cluster and distance.

    Rows that ``data.on_bad_rows`` leaves out are missing there, too, and kept beside the shards instead.

    Args:
        source: the rows to embed, those trained on or others.
        model: finished ``model`` artifact.
        clusters: finished ``clusters`` artifact.
        output: where the artifact ``output`` goes.
        config: rows at a time.
        mapper: hands out the shards that are still missing.

    Raises:
        ShardWidthError: the rows have another width than the model.
        SourceError: a row cannot be used.
    """
    dim, n_components = (model.manifest().properties[name] for name in ("dim", "n_components"))
    if source.dim != dim:
        raise ShardWidthError(
            f"{source.shards[0].uri}: rows have width {source.dim}, the model {model.uri} was trained on {dim}; "
            "embed rows of the same kind"
        )
    done = output.begin()
    names = [f"part-{index:05d}.parquet" for index in range(len(source.shards))]
    missing = [(name, shard) for name, shard in zip(names, source.shards, strict=True) if name not in done]
    versions = (model.manifest().fingerprint, clusters.manifest().fingerprint)
    task = functools.partial(_embed_shard, source.reader, model, clusters, versions, output.artifact, config.batch_rows)
    for written in mapper(task, missing, "embedding"):
        done[written.name] = written
    n_clusters = clusters.manifest().properties["n_clusters"]
    shards = [done[name] for name in names]
    agreement = evaluate(shards, n_clusters)
    properties = {"n_components": n_components, "n_clusters": n_clusters}
    metrics: dict[str, Any] = {} if agreement is None else {"evaluate": agreement}
    if source.config.on_bad_rows == "quarantine":
        metrics["quarantine"] = quarantine_metrics(shards)
    return output.commit(shards, properties, metrics, quarantine_files(shards))


@functools.lru_cache(maxsize=1)
def _embedder(model_uri: str, clusters_uri: str, versions: tuple[str, str]) -> Embedder:
    """Return the model, loaded once per process; ``versions`` are the artifacts' fingerprints."""
    del versions
    embedder = Embedder(load_calibrated_network(Artifact(model_uri)), load_assigner(Artifact(clusters_uri)))
    return embedder.eval().to(torch_device("auto"))


def _embed_shard(
    reader: ShardReader,
    model: Artifact,
    clusters: Artifact,
    versions: tuple[str, str],
    artifact: Artifact,
    batch_rows: int,
    item: tuple[str, SourceShard],
) -> Shard:
    """Write one output shard and its receipt: cluster sizes, summed distances and labels met in each cluster."""
    name, shard = item
    embedder = _embedder(model.uri, clusters.uri, versions)
    device = next(embedder.parameters()).device
    n_clusters, n_components = len(embedder.assigner.centroids), len(embedder.assigner.scale)
    counts, distances = np.zeros(n_clusters, np.int64), np.zeros(n_clusters)
    labels_met: Counter[tuple[int | str, int]] = Counter()
    details: dict[str, Any] = {}
    schema = pa.schema(
        [
            ("id", ARROW_TYPES[reader.id_type or "int64"]),
            ("embedding", pa.list_(pa.float32(), n_components)),
            ("cluster", pa.int32()),
            ("distance", pa.float32()),
        ]
    )

    left_out: list[pa.RecordBatch] = []

    @torch.inference_mode()
    def write(stream: IO[bytes]) -> None:
        with pq.ParquetWriter(stream, schema, compression="zstd", use_dictionary=["cluster"]) as writer:
            for block in reader.read_blocks(shard, batch_rows, left_out):
                outputs = embedder(torch.from_numpy(block.vectors).to(device))
                embedding, cluster, distance = (tensor.cpu().numpy() for tensor in outputs)
                counts[:] += np.bincount(cluster, minlength=n_clusters)
                distances[:] += np.bincount(cluster, weights=distance, minlength=n_clusters)
                if block.labels is not None:
                    labels_met.update(zip(block.labels.to_pylist(), cluster.tolist(), strict=True))
                flat = pa.array(np.ascontiguousarray(embedding, dtype=np.float32).reshape(-1))
                columns = [
                    block.global_ids(shard),
                    pa.FixedSizeListArray.from_arrays(flat, n_components),
                    pa.array(cluster.astype(np.int32)),
                    pa.array(distance.astype(np.float32)),
                ]
                writer.write_batch(pa.record_batch(columns, schema=schema))
        details.update(
            cluster_counts=counts.tolist(),
            distance_sums=distances.tolist(),
            label_counts=[[label, cluster, n] for (label, cluster), n in labels_met.items()],
            **write_quarantine(artifact, name, left_out),
        )

    n_bytes = artifact.write_file(name, write)
    return artifact.write_receipt(Shard(name=name, n_rows=int(counts.sum()), n_bytes=n_bytes, details=details))

"""Vectors through a network to new vectors: the same format, so that every stage that reads the one reads the other."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from torch import nn

from distspectral.embedding.forward import forward, rows_of_block
from distspectral.embedding.loading import Loader
from distspectral.embedding.stream import Clock, busy_seconds, stream
from distspectral.errors import CollapsedError
from distspectral.mapping import Mapper, local_map
from distspectral.models.networks import torch_device
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.artifact.manifest import Manifest, Shard
from distspectral.storage.artifact.output import Output
from distspectral.storage.artifact.receipts import write_missing, write_shard
from distspectral.storage.rows.block import Block
from distspectral.storage.rows.columns import ScalarType
from distspectral.storage.rows.joined import open_vectors
from distspectral.storage.rows.moments import Moments
from distspectral.storage.rows.packed import PackedWriter
from distspectral.storage.rows.shard_rows import layout
from distspectral.storage.rows.vectors import MappedVectors

WITHOUT = {"autoencoder": ("representation", "input"), "siamese": ("affinity.space", "euclidean")}
"""What a run without the network of a stage is asked for by."""

EPSILON = 1e-6
"""Spread of outputs relative to their mean below which only rounding is left."""


def encode(
    vectors: Sequence[Artifact],
    output: Output,
    load: Callable[[], nn.Module],
    device: str = "auto",
    mapper: Mapper = local_map,
    facts: Mapping[str, Any] | None = None,
    trained: str = "train",
) -> Manifest:
    """Write the network's outputs at every row as a vectors artifact, shard for shard, ids and labels kept.

    Args:
        vectors: finished ``vectors`` artifact, (N, D); or several, which the network sees side by side.
        output: where the new one goes.
        load: picklable; returns the network, (B, D) to (B, E), on the CPU. Called once per process: the output's
            fingerprint tells networks apart.
        device: ``auto``, ``cpu`` or ``cuda``.
        mapper: hands out the shards that are still missing.
        facts: of the network, for the new manifest.
        trained: the stage that trained the network, for messages.

    Raises:
        CollapsedError: the network's outputs are the same at all rows.
    """
    done = output.begin()
    source = vectors[0].manifest()
    items = [(shard.name, shard.n_rows) for shard in source.shards]
    loader = Loader((output.artifact.uri, output.fingerprint), load)
    task = functools.partial(
        _encode_shard,
        tuple(vectors),
        output.artifact,
        loader,
        device,
    )
    shards = write_missing(done, mapper, task, items, "encoding", on_gpu=True)
    moments = Moments.of_shards(shards)
    refuse_collapse(moments.mean, moments.variance, moments.n_rows, output.artifact.uri, trained)
    kept = {name: source.properties[name] for name in ("has_labels", "id_type", "source_shards")}
    return output.commit(
        shards,
        {
            "dim": len(moments.mean),
            "dtype": "float32",
            "mean": moments.mean.tolist(),
            "variance": moments.variance,
            **kept,
            **(facts or {}),
        },
        {"busy_seconds": busy_seconds(shards)},
    )


def refuse_collapse(
    mean: np.ndarray[Any, np.dtype[np.float64]], variance: float, n_rows: int, place: str, trained: str
) -> None:
    """Refuse outputs that differ by no more than float32 rounding.

    Args:
        mean: (E,) of the outputs.
        variance: mean over the outputs' columns.
        n_rows: that passed the network.
        place: where the outputs are, for the message.
        trained: the stage that trained the network, likewise.

    Raises:
        CollapsedError: just that.
    """
    if variance <= (EPSILON * float(np.abs(mean).max())) ** 2:
        keys = [f"{trained}.learning_rate", f"{trained}.max_steps"]
        remedy = f"lower {keys[0]}, or raise {keys[1]}"
        if trained in WITHOUT:
            key, value = WITHOUT[trained]
            keys, remedy = [*keys, key], f"{remedy}, or do without the network ({key} = {value})"
        raise CollapsedError(
            f"{place}: the network of the stage {trained} maps all {n_rows} rows to one point, so they have no "
            f"neighbourhoods; {remedy}",
            keys,
        )


def _encode_shard(
    vectors: tuple[Artifact, ...],
    artifact: Artifact,
    loader: Loader[nn.Module],
    device: str,
    item: tuple[str, int],
) -> Shard:
    """Write the outputs at the rows of one shard as one packed shard."""
    name, n_rows = item
    rows, where = open_vectors(vectors, only=name), torch_device(device)
    network, block_rows = loader.on(where), rows_of_block(rows.dim)
    named, id_type = MappedVectors(vectors[0], only=name), vectors[0].manifest().properties["id_type"]
    ids, labels = named.ids(), named.labels()
    label_type: ScalarType | None = None
    if labels is not None:
        label_type = "string" if pa.types.is_string(labels.type) else "int64"
    clock = Clock()
    details: dict[str, Any] = {}

    def blocks() -> Iterator[Block]:
        for first in range(0, n_rows, block_rows):
            last = min(first + block_rows, n_rows)
            block_labels = None if labels is None else labels.slice(first, last - first).combine_chunks()
            # of its own memory, so that this thread waits for the disk under a mapped file
            yield Block(np.require(rows.block(first, last), requirements="O"), None, block_labels, first)

    def write(sink: IO[bytes]) -> int:
        width = forward(network, np.zeros((1, rows.dim), np.float32)).shape[1]  # the shard may have no rows
        with PackedWriter(sink, n_rows, width, "float32", id_type, label_type) as writer:

            def put(block: Block, made: dict[str, NDArray[Any]]) -> None:
                encoded = dataclasses.replace(block, vectors=made["outputs"])
                writer.append(encoded, ids.slice(block.first_row, block.n_rows).combine_chunks())

            stream(blocks(), lambda x: {"outputs": network(x).float()}, put, where, clock)
        if writer.moments is not None:  # a shard whose source rows are all in quarantine has none
            details.update(writer.moments.details())
        details.update(layout(sink, ["vector"]))
        details["seconds"] = clock.seconds
        return n_rows

    return write_shard(artifact, name, write, details)

"""Neighbour lists to a weighted graph: every distance becomes an affinity."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distspectral.graph.config import AffinityConfig, check
from distspectral.graph.facts import graph_facts
from distspectral.graph.links import Links
from distspectral.graph.store import AFFINITIES, NEIGHBORS, SQUARED_DISTANCES, MappedGraph, read_neighbors, write_rows
from distspectral.graph.weights import all_scales, block_affinities, row_scales
from distspectral.mapping import Mapper, local_map
from distspectral.spectral.affinity import needs_scales
from distspectral.stages.neighbors import LINKS
from distspectral.stages.stage import Manifests, Stage, Work
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.artifact.manifest import Manifest, Shard
from distspectral.storage.artifact.output import Output

SCALES = "scales.npy"


def affinities(neighbors: Artifact, output: Output, config: AffinityConfig, mapper: Mapper = local_map) -> Manifest:
    """Weigh every edge; one task per shard of ``neighbors``, after one cheap pass for the scales of all rows.

    Args:
        neighbors: the finished ``neighbors`` artifact.
        output: where ``graph`` is written.
        config: the section ``affinity``.
        mapper: runs the tasks.

    Returns:
        The manifest; properties ``k``, ``n_rows``, ``components``, ``largest_component_share``, ``total_affinity``,
        ``degree_min``, ``degree_median``, ``degree_max``, ``degree_histogram`` (``counts``, ``edges``).

    Raises:
        ConfigError: the scale neighbour is beyond the neighbours there are.
    """
    source = neighbors.manifest()
    check(source.properties["k"], config)
    done = output.begin()
    if needs_scales(config.kind) and not output.artifact.has(SCALES):
        _write_scales(neighbors, source, output.artifact, config)
    starts = np.cumsum([0, *(shard.n_rows for shard in source.shards)]).tolist()
    missing = [
        (shard.name, start) for shard, start in zip(source.shards, starts, strict=False) if shard.name not in done
    ]
    links = Links.none()
    if LINKS in source.files:
        with np.load(io.BytesIO(neighbors.read_bytes(LINKS))) as arrays:
            links = Links.of(arrays)
    task = functools.partial(
        _weigh, neighbors=neighbors, output=output.artifact, n_rows_global=source.n_rows, config=config, links=links
    )
    done |= {shard.name: shard for shard in mapper(task, missing, "weighing edges")}
    shards = [done[shard.name] for shard in source.shards]
    facts = graph_facts(MappedGraph(output.artifact, shards))
    return output.commit(shards, properties={"n_rows": source.n_rows, **facts}, metrics={})


def _write_scales(neighbors: Artifact, source: Manifest, output: Artifact, config: AffinityConfig) -> None:
    scales = np.concatenate([row_scales(read_neighbors(neighbors, shard.name)[1], config) for shard in source.shards])
    completed = all_scales(scales, config)
    output.write_file(SCALES, functools.partial(np.save, arr=completed))


def _read_scales(output: Artifact) -> NDArray[np.float32]:
    if output.is_local:
        scales: NDArray[np.float32] = np.load(output.file_path(SCALES), mmap_mode="r")
    else:
        scales = np.load(io.BytesIO(output.read_bytes(SCALES)))
    return scales


def _weigh(
    item: tuple[str, int],
    *,
    neighbors: Artifact,
    output: Artifact,
    n_rows_global: int,
    config: AffinityConfig,
    links: Links,
) -> Shard:
    name, start = item
    ids, squared_distances = read_neighbors(neighbors, name)
    ids, squared_distances = links.applied(start, ids, squared_distances)
    scales = _read_scales(output) if needs_scales(config.kind) else None
    lists = MappedGraph(neighbors, weights=SQUARED_DISTANCES) if config.kind == "shared_neighbors" else None
    weights = block_affinities(start, ids, squared_distances, scales, config, lists)
    return write_rows(output, name, n_rows_global, {NEIGHBORS: ids, AFFINITIES: weights})


# ---- the declarations ----------------------------------------------------------------------------------------


def graph_stage(
    name: str, purpose: str, inputs: tuple[str, ...], run: Callable[[Work], Manifest], **more: Any
) -> Stage:
    """Return a stage that writes a graph, whatever weighs its edges."""

    def facts(manifests: Manifests) -> dict[str, Any]:
        return {key: manifests[name].properties[key] for key in ("k", "components", "largest_component_share")}

    return Stage(
        name=name,
        folder=name.replace("_", "-"),
        purpose=purpose,
        done="weighed edges",
        inputs=lambda recipe: inputs,
        workers="tasks",
        run=run,
        facts=facts,
        lines=lambda facts: {name.replace("_", " "): _in_words(facts)},
        notes=lambda metrics: _notes(metrics[name]),
        **more,
    )


def _in_words(facts: dict[str, Any]) -> str:
    share = facts["largest_component_share"]
    return f"k = {facts['k']}, {facts['components']} components, largest {share:.1%} of the rows"


def _notes(facts: dict[str, Any]) -> list[str]:
    if facts["components"] == 1:
        return []
    return [
        f"The graph has {facts['components']} components that no edge joins; the first functions tell them apart. "
        "Raise graph.n_neighbors or set graph.connect to nearest if they should be one."
    ]


def _affinities_of(lists: str) -> Callable[[Work], Manifest]:
    return lambda work: affinities(work.artifacts[lists], work.output, work.settings["affinity"], work.mapper)


WEIGHING: dict[str, Any] = {"sections": ("affinity",), "harmless": ("affinity.scope", "affinity.space")}
GRAPH = graph_stage("graph", "Weigh the edges.", ("neighbors",), _affinities_of("neighbors"), **WEIGHING)
SIAMESE_GRAPH = graph_stage(
    "siamese_graph",
    "Weigh the edges between the new neighbours.",
    ("siamese_neighbors",),
    _affinities_of("siamese_neighbors"),
    **WEIGHING,
)

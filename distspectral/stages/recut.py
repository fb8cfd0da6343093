"""Another cut of a finished run's tree: the cluster of each leaf, and how good each cluster is. Nothing is trained.

Shape letters: C clusters, M leaves.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pyarrow as pa

from distspectral.clustering.fine import NODES as FINE_NODES
from distspectral.embedding.columns import require_column
from distspectral.errors import ConfigError
from distspectral.recipes import SpectralRecipe
from distspectral.spectral.tree import Tree, cluster_facts
from distspectral.stages.finished_run import CUTS, FinishedRun
from distspectral.stages.tree_files import NODES, load_fine_tree, load_tree, read_table, write_table
from distspectral.storage.artifact.directory import MANIFEST, Artifact
from distspectral.storage.artifact.manifest import fingerprint
from distspectral.storage.artifact.output import Output

CLUSTERS, TABLE = "clusters.parquet", "table.parquet"
NAME = re.compile(r"[A-Za-z0-9][\w.-]*")


@dataclasses.dataclass(frozen=True)
class Wish:
    """Where a tree is to be cut, by one of three numbers.

    Attributes:
        n_clusters: C.
        threshold: affinity relative to chance; all pairs that have as much are merged.
        min_rows: as many clusters as there can be of so many rows each.
    """

    n_clusters: int | None = None
    threshold: float | None = None
    min_rows: int | None = None

    def __post_init__(self) -> None:
        if len(self.facts) != 1:
            raise ConfigError("recut: give one of --n-clusters, --threshold and --min-rows")
        ((key, value),) = self.facts.items()
        least = 0 if key == "threshold" else 1
        if not value >= least:  # NaN is not
            raise ConfigError(f"--{key.replace('_', '-')}: is {value}, expected at least {least}")

    @property
    def facts(self) -> dict[str, float]:
        """What is given, by name."""
        return {key: value for key, value in vars(self).items() if value is not None}

    @property
    def name(self) -> str:
        """A name for the cut."""
        ((key, value),) = self.facts.items()
        return f"{key.replace('_', '-')}-{value:g}"

    def clusters_of(self, tree: Tree) -> int:
        """Return C."""
        if self.threshold is not None:
            return tree.n_above(self.threshold)
        if self.min_rows is not None:
            return tree.n_of_rows(self.min_rows)
        assert self.n_clusters is not None, self
        return self.n_clusters


@dataclasses.dataclass(frozen=True)
class Cut:
    """A cut that stands in a run's root.

    Attributes:
        artifact: ``cuts/NAME``.
        table: (C,) rows of what is known of each cluster, as of ``table.parquet``.
    """

    artifact: Artifact
    table: pa.Table


def recut(root: Artifact, wish: Wish, name: str | None = None) -> Cut:
    """Cut a finished run's tree anew, and write the artifact ``cuts/NAME``; one that stands already is left.

    A cut into more clusters than leaves is of fine leaves, if the tree has some.

    Args:
        root: the run's directory.
        wish: where to cut.
        name: of the cut; None makes one of the wish.

    Raises:
        ConfigError: the name is none, another cut has it, the run has no tree, or its output has no leaves.
        TooManyClustersError: more clusters than the tree has leaves.
        ArtifactError: the tree or the output is missing or damaged, or the output was made from another tree.
    """
    name = wish.name if name is None else name
    if not NAME.fullmatch(name):
        raise ConfigError(f"--name: is {name!r}, expected letters, digits, dots, hyphens and underscores")
    run = FinishedRun(root)
    run.require_kind(SpectralRecipe.kind, "tree")
    artifact, embedded = run.artifact("tree"), run.artifact("embed")
    require_column(embedded.manifest(), "leaf", embedded.uri)
    made = run.require_read("tree", "embed")
    tree, affinities = load_tree(artifact)
    n_clusters, kind, nodes = wish.clusters_of(tree), "leaf", NODES
    if n_clusters > tree.n_leaves and (finer := load_fine_tree(artifact)) is not None:
        tree, kind, nodes = finer, "fine", FINE_NODES
    labels, own = tree.labels(n_clusters), tree.nodes(n_clusters)
    if kind == "leaf":
        facts = cluster_facts(affinities, tree.rows[: tree.n_leaves], labels)
    else:
        facts = {"rows": tree.rows[own], "share": tree.rows[own] / tree.rows[-1], "conductance": tree.conductance[own]}
    table, known = _table(facts), read_table(artifact, nodes)
    for column in ("stability", "exemplar"):
        if column in known.column_names:
            table = table.append_column(column, known[column].take(pa.array(own)))
    config: dict[str, Any] = {**wish.facts, "found": n_clusters}
    inputs = {"tree": made.fingerprint}
    output = Output(root.child(CUTS).child(name), "recut", fingerprint("recut", config, inputs), config, inputs)
    if not output.artifact.is_current(output.fingerprint):
        _refuse_another(output)
        output.begin()
        clusters = {kind: pa.array(range(tree.n_leaves), pa.int32()), "cluster": pa.array(labels, pa.int32())}
        write_table(output.artifact, CLUSTERS, pa.table(clusters))
        write_table(output.artifact, TABLE, table)
        output.commit([], {"n_clusters": n_clusters}, {}, files=(CLUSTERS, TABLE))
    return Cut(output.artifact, table)


def _refuse_another(output: Output) -> None:
    """Refuse to replace another cut of the same tree.

    Raises:
        ConfigError: one stands there.
    """
    if not output.artifact.has(MANIFEST):
        return
    found = output.artifact.manifest()
    if found.inputs == output.inputs and found.fingerprint != output.fingerprint:
        raise ConfigError(
            f"--name: {output.artifact.uri} holds another cut, into {found.properties['n_clusters']} clusters; give "
            "another name, or delete it"
        )


def _table(facts: dict[str, Any]) -> pa.Table:
    columns = {
        "cluster": pa.array(range(len(facts["rows"])), pa.int32()),
        "rows": pa.array(facts["rows"], pa.int64()),
        "share": pa.array(facts["share"], pa.float64()),
        "conductance": pa.array(facts["conductance"], pa.float64()),
    }
    if "nearest" in facts:
        columns["pieces"] = pa.array(facts["pieces"], pa.int32())
        columns["nearest"] = pa.array(facts["nearest"], pa.int32(), mask=facts["nearest"] < 0)
        columns["affinity"] = pa.array(facts["affinity"], pa.float64())
    return pa.table(columns)

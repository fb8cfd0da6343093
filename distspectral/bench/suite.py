"""Many labelled sets, seeds and methods, one result a line in a file; what is in the file is not done again.

Shape letters: N rows, D features, C classes.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import make_blobs

from distspectral.bench.baselines import REQUIREMENTS, Baseline
from distspectral.bench.quality import OURS, OurRun, Scores, judged
from distspectral.bench.seeds import over_seeds
from distspectral.config.run import RunConfig
from distspectral.datasets import two_moons, write_digits, write_vectors
from distspectral.errors import ConfigError
from distspectral.orchestration.engine import Engine
from distspectral.storage.source.dataset import Source, SourceConfig

RESULTS = "results.jsonl"
MOST_CLASSES = 100
"""Of a set found in a folder of sets; one with more is there for other questions, and taken where it is named."""
MOST_ROWS = {"scikit-learn": 10_000, "spectralnet": 10_000}
"""Rows that a method gets, drawn by its seed; all of MNIST takes these an hour."""
TITLES = {
    "distspectral": "**distspectral, all defaults**",
    "exact": "exact eigenvectors of our graph, our recipe for clusters",
    "k-means": "k-means",
    "umap-kmeans": "UMAP to 10 dimensions, k-means",
    "umap-hdbscan": "UMAP to 10 dimensions, HDBSCAN",
    "scikit-learn": "scikit-learn `SpectralClustering`, at most 10,000 rows",
    "leiden": "Leiden on the graph of 15 neighbours, scanned to C",
    "evoc": "EVoC 0.3.2",
    "spectralnet": "the package spectralnet 1.1.0, at most 10,000 rows",
}
"""How tables call methods, in their order."""
METHODS = (*OURS, *REQUIREMENTS)
DEFAULT_METHODS = tuple(name for name in METHODS if name != "spectralnet")


UNEVEN = (2000, 1000, 500, 250, 120, 60)


def _write_moons(folder: str) -> None:
    rows, labels = two_moons(2000)
    write_vectors(folder, rows, labels=labels)


def _write_uneven_blobs(folder: str) -> None:
    rows, labels = make_blobs(UNEVEN, 16, cluster_std=2.5, center_box=(-6, 6), random_state=0)
    write_vectors(folder, rows.astype(np.float32), labels=labels)


OWN: dict[str, Callable[[str], Any]] = {
    "digits": write_digits,
    "moons": _write_moons,
    "uneven-blobs": _write_uneven_blobs,
}
"""Sets of scikit-learn's, by the names that the command takes: what writes them into a folder."""


@dataclasses.dataclass(frozen=True)
class LabelledSet:
    """A folder of shards with the columns vector and label.

    Attributes:
        name: in results.
        paths: of the shards to cluster.
        held_out: of those to embed afterwards.
        n_clusters: C, the labels that there are.
    """

    name: str
    paths: list[str]
    held_out: list[str]
    n_clusters: int

    def rows(self, method: str, seed: int) -> tuple[NDArray[np.float32], NDArray[Any]]:
        """Return rows (N, D) and labels (N,), as many as a method gets."""
        source = _open(self.paths)
        blocks = [block for shard in source.shards for block in source.read_blocks(shard)]
        vectors = np.concatenate([block.vectors for block in blocks])
        labels = np.concatenate([_labels(block.labels) for block in blocks])
        if len(vectors) > MOST_ROWS.get(method, len(vectors)):
            chosen = np.random.default_rng(seed).permutation(len(vectors))[: MOST_ROWS[method]]
            return vectors[chosen], labels[chosen]
        return vectors, labels


def find_sets(
    folders: Iterable[str], root: str, held_out: int = 0, on_skip: Callable[[str], None] = lambda told: None
) -> list[LabelledSet]:
    """Return the sets that are named: folders of shards, folders of such folders, and names of :data:`OWN`.

    Args:
        folders: paths, URIs and names.
        root: where shards of :data:`OWN` sets are written.
        held_out: last shards of each set that are not clustered.
        on_skip: hears of sets inside a folder that have more than :data:`MOST_CLASSES` classes.

    Raises:
        ConfigError: no shard is left to cluster, or two sets have one name.
        SourceError: a folder's data are not what they should be.
    """
    sets: list[LabelledSet] = []
    for named in folders:
        if named in OWN and not Path(named).exists():
            inside = [f"{root}/sets/{named}"]
            OWN[named](inside[0])
        else:
            inside = _sets_in(named)
        for folder in inside:
            found = _labelled_set(folder, held_out)
            if len(inside) > 1 and found.n_clusters > MOST_CLASSES:
                on_skip(f"{folder} has {found.n_clusters:,} classes: left out unless it is named itself")
            else:
                sets.append(found)
    names = [one.name for one in sets]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ConfigError(f"FOLDER: two sets are called {min(twice)}; name one")
    return sets


def _sets_in(folder: str) -> list[str]:
    """Return the folder itself, or the folders of shards in it."""
    local = Path(folder)
    inner = [str(child) for child in sorted(local.iterdir()) if child.is_dir()] if local.is_dir() else []
    has_shards = local.is_dir() and any(child.is_file() and child.suffix != ".md" for child in local.iterdir())
    return inner if inner and not has_shards else [folder]


def _labelled_set(folder: str, held_out: int) -> LabelledSet:
    source = _open(folder)
    paths = list(dict.fromkeys(shard.uri for shard in source.shards))  # a large file is several shards
    if held_out >= len(paths):
        raise ConfigError(f"--held-out: is {held_out}, but {folder} has {len(paths)} shards; leave one to train on")
    blocks = (block for shard in source.shards for block in source.read_blocks(shard))
    classes = set().union(*(np.unique(_labels(block.labels)).tolist() for block in blocks))
    cut = len(paths) - held_out
    return LabelledSet(folder.rstrip("/").rpartition("/")[2], paths[:cut], paths[cut:], len(classes))


def _open(path: str | list[str]) -> Source:
    return Source.open(SourceConfig(path=path, label_column="label"))


def _labels(column: Any) -> NDArray[Any]:
    assert column is not None, "the source names a label column"
    labels: NDArray[Any] = column.to_numpy(zero_copy_only=False)
    return labels.astype(str)


class Results:
    """Results in a file of JSON lines, to which each is added as it comes.

    Args:
        path: local; made with the first result. A last line that was cut short is as good as absent.
        on_result: called with each that is added.
    """

    def __init__(self, path: Path, on_result: Callable[[Scores], None] = lambda result: None) -> None:
        self._path, self._on_result = path, on_result
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        if lines and not lines[-1].endswith("\n"):
            path.write_text("".join(lines[:-1]))
            del lines[-1]
        self._all: list[Scores] = [json.loads(line) for line in lines]

    def of(self, wanted: Mapping[str, Any]) -> list[Scores]:
        """Return the results that have these values."""
        return [one for one in self._all if all(one.get(key) == value for key, value in wanted.items())]

    def add(self, result: Scores) -> None:
        """Add one to the file."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a") as file:
            file.write(json.dumps(result) + "\n")
        self._all.append(result)
        self._on_result(result)


def run_suite(
    sets: Sequence[LabelledSet],
    root: Path,
    seeds: Sequence[int],
    methods: Sequence[str],
    overrides: Sequence[str],
    engine: Callable[[RunConfig], Engine],
    python: Path | None = None,
    on_result: Callable[[Scores], None] = lambda result: None,
) -> list[Scores]:
    """Return the results asked for, those of earlier calls among them: see :func:`distspectral.bench.quality.judged`.

    Args:
        sets: to cluster.
        root: of results and of our runs, ``SET/seed-SEED``.
        seeds: of every method.
        methods: of :data:`METHODS`.
        overrides: of our config, for variants; none for the defaults.
        engine: who does our stages' work.
        python: of the baselines' environment; None if no method needs it.
        on_result: called with each result that is new.

    Raises:
        ConfigError: there is no such method.
        MissingDependencyError: the environment lacks a method's package.
    """
    if unknown := [name for name in methods if name not in METHODS]:
        raise ConfigError(f"--method: {unknown[0]!r} is none of {', '.join(METHODS)}")
    results = Results(root / RESULTS, on_result)
    asked: list[Scores] = []
    for method in methods:
        keys: list[tuple[LabelledSet, dict[str, Any]]] = [
            (one, {"set": one.name, "seed": seed, "method": method, "shards": len(one.paths)})
            for one in sets
            for seed in seeds
        ]
        if method in OURS:
            for one, key in keys:
                key["overrides"] = list(overrides)
                if not results.of(key):
                    place = f"{root}/{one.name}/seed-{key['seed']}"
                    run = OurRun(one.paths, one.held_out, place, key["seed"], one.n_clusters, overrides, engine)
                    results.add(key | OURS[method](run))
        elif due := [(one, key) for one, key in keys if not results.of(key)]:
            assert python is not None, "the caller has made an environment for it"
            with Baseline(python, method) as baseline:
                for one, key in due:
                    rows, labels = one.rows(method, key["seed"])
                    found, took = baseline.cluster(rows, one.n_clusters, key["seed"])
                    results.add(key | judged(labels, found, rows) | took)
        asked += [found for _, key in keys for found in results.of(key)]
    return asked


def summary(results: Iterable[Scores]) -> dict[str, dict[str, dict[str, Any]]]:
    """Return by set and method the mean and the standard deviation over seeds (0 of one) of each number."""
    by_set: dict[str, list[Scores]] = {}
    for one in results:
        by_set.setdefault(one["set"], []).append(one)
    return {name: over_seeds((one["method"], _numbers(one)) for one in found) for name, found in by_set.items()}


def _numbers(result: Scores) -> dict[str, float]:
    return {key: value for key, value in result.items() if isinstance(value, (int, float)) and key != "seed"}


def tables(results: Iterable[Scores]) -> str:
    """Return scores, core-seconds and what ``auto`` decided as tables in Markdown; the best ACC of a set is bold."""
    results = list(results)
    means = summary(results)
    methods = [name for name in TITLES if any(name in found for found in means.values())]
    best = {name: max(scores["acc"][0] for scores in found.values()) for name, found in means.items()}
    scores, seconds = [["ACC (deviation) / NMI", *means]], [["core-seconds", *means]]
    for method in methods:
        of_sets = {name: found.get(method, {}) for name, found in means.items()}
        for prefix, rows in (("", ""), ("covered_", ", the rows it labels"), ("held_out_", ", rows held out")):
            cells = [_cell(found, prefix, best[name]) for name, found in of_sets.items()]
            if any(cells):
                scores.append([f"{TITLES[method]}{rows}", *cells])
        spent = (found.get("core_seconds") for found in of_sets.values())
        seconds.append([TITLES[method], *("" if one is None else f"{one[0]:,.0f}" for one in spent)])
    return "\n\n".join(markdown(table) for table in (scores, seconds, _choices(results)) if len(table) > 1)


def _cell(found: Mapping[str, tuple[float, float]], prefix: str, best: float) -> str:
    """Return ``ACC (deviation) / NMI``, of part of the rows with their share; nothing where there is no such part."""
    if f"{prefix}acc" not in found:
        return ""
    (acc, deviation), (nmi, _) = found[f"{prefix}acc"], found[f"{prefix}nmi"]
    shown = f"**{shown_score(acc)}**" if acc == best and not prefix else shown_score(acc)
    share = f", {found['covered'][0]:.0%}" if prefix == "covered_" else ""
    return f"{shown}{f' ({shown_score(deviation)})' if deviation else ''} / {shown_score(nmi)}{share}"


def _choices(results: Iterable[Scores]) -> list[list[str]]:
    """Return a table of what our runs decided, a row a set; where seeds differ, every answer."""
    ours: dict[str, list[dict[str, Any]]] = {}
    for one in results:
        if "decisions" in one:
            ours.setdefault(one["set"], []).append(one["decisions"])
    keys = list(dict.fromkeys(key for runs in ours.values() for run in runs for key in run))
    answers = {
        name: [dict.fromkeys(_words(run.get(key)) for run in runs) for key in keys] for name, runs in ours.items()
    }
    return [["decided", *keys], *([name, *(", ".join(one) for one in row)] for name, row in answers.items())]


def shown_score(value: float) -> str:
    """Return .123 of 0.1234, and 1.000."""
    return f"{value:.3f}".removeprefix("0")


def _words(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return shown_score(value)
    return " + ".join(map(str, value)) if isinstance(value, list) else "" if value is None else str(value)


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Return rows of cells, the heading first, as a table in Markdown."""
    head, *body = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([head, f"|{' --- |' * len(rows[0])}", *body])

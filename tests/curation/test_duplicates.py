"""Near-duplicates of a run's rows: the groups of a dense search, however shards are cut and whenever it is stopped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.sparse
from numpy.typing import NDArray
from scipy.sparse import csgraph
from scipy.spatial.distance import cdist

from distspectral.curation import duplicates
from distspectral.curation.duplicates import PAIRS, dedup, dedup_output, survey
from distspectral.curation.lists import RunLists
from distspectral.datasets import write_vectors
from distspectral.errors import ConfigError
from distspectral.graph import near
from distspectral.mapping import local_map
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.artifact.manifest import Manifest
from tests.mappers import StoppedError, stopping
from tests.runs import write_metric_run, write_run
from tests.stages.chain import opened

N_NEAREST = 15


def searched(folder: Path, rows: NDArray[Any], sizes: tuple[int, ...], **graph: Any) -> Artifact:
    """Return the root of a run on the rows whose neighbours have been searched."""
    path = write_run(folder, graph={"n_neighbors": N_NEAREST, "block_rows": 90, "metric": "l2", **graph})
    for shard in (folder / "data").iterdir():
        shard.unlink()
    ids = np.arange(len(rows)) * 10
    write_vectors(str(folder / "data"), rows.astype(np.float32), labels=np.zeros(len(rows), int), ids=ids, sizes=sizes)
    pipeline = opened(path)
    for stage in ("pack", "neighbors"):
        pipeline.stage(stage)
    return Artifact(str(folder / "root"))


def found(root: Artifact, threshold: float, measure: Any = None, mapper: Any = local_map) -> tuple[Manifest, Any]:
    lists = RunLists.of(root, measure)
    manifest = dedup(lists, threshold, dedup_output(lists, threshold, root.child("dedup")), mapper)
    return manifest, table(root.child("dedup"))


def table(artifact: Artifact) -> Any:
    return pa.concat_tables(pq.read_table(path) for path in sorted(Path(artifact.path).glob("*.parquet")))


def expected(distances: NDArray[Any], threshold: float) -> NDArray[np.int64]:
    """Return each row's group by all pairs, named by its first row."""
    _, labels = csgraph.connected_components(scipy.sparse.csr_array(distances <= threshold), directed=False)
    return np.unique(labels, return_index=True)[1][labels]


def copies(rng: np.random.Generator) -> NDArray[Any]:
    """Return 100 scattered rows and 80 noisy copies of some of them, shuffled."""
    rows = rng.standard_normal((100, 5)) * 10 + 3
    noisy = rows[rng.integers(0, 40, 80)] + rng.standard_normal((80, 5)) * 0.01
    return rng.permutation(np.concatenate([rows, noisy]))


@pytest.mark.parametrize("sizes", [(180,), (7, 100, 73)])
def test_groups_are_those_of_all_pairs_and_the_first_of_each_is_kept(tmp_path: Path, sizes: tuple[int, ...]) -> None:
    rows = copies(np.random.default_rng(0))
    manifest, made = found(searched(tmp_path, rows, sizes), 0.1)
    groups = expected(cdist(rows, rows), 0.1)
    assert made["id"].to_pylist() == (np.arange(180) * 10).tolist()
    assert made["group"].to_pylist() == groups.tolist()
    assert made["keep"].to_pylist() == (groups == np.arange(180)).tolist()
    sizes_found = np.bincount(groups)
    assert manifest.metrics["groups"] == (sizes_found > 1).sum() == len(np.unique(groups[groups != np.arange(180)]))
    assert manifest.metrics["dropped_rows"] == 80
    assert manifest.metrics["kept_rows"] == 100
    assert manifest.metrics["largest_group"] == sizes_found.max()
    assert [shard.n_rows for shard in manifest.shards] == list(sizes)


def test_a_chain_is_one_group_although_its_ends_are_far_apart(tmp_path: Path) -> None:
    rows = np.zeros((60, 5))
    rows[:30, 0], rows[30:, 1] = np.arange(30), 100 + np.arange(30) * 5
    _, made = found(searched(tmp_path, rows, (60,), n_neighbors=2), 1.0)
    assert made["group"].to_pylist() == [0] * 30 + list(range(30, 60))


@pytest.mark.parametrize("method", ["exact", "cells"])
def test_a_hundred_equal_rows_are_one_group_although_lists_hold_fifteen(tmp_path: Path, method: str) -> None:
    rng = np.random.default_rng(1)
    rows = rng.standard_normal((900, 5))
    equal = np.sort(rng.choice(900, 100, replace=False))
    rows[equal] = rows[equal[0]]
    manifest, made = found(searched(tmp_path, rows, (900,), method=method), 0.0)
    groups = np.arange(900)
    groups[equal] = equal[0]
    assert made["group"].to_pylist() == groups.tolist()
    assert (manifest.metrics["groups"], manifest.metrics["dropped_rows"]) == (1, 99)


@pytest.mark.parametrize("measure", ["l2", "cosine", "centered_cosine"])
@pytest.mark.parametrize("metric", ["l2", "cosine", "centered_cosine", "inner_product"])
def test_distances_are_those_of_the_measure_whatever_the_search_went_by(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, measure: Any, metric: str
) -> None:
    monkeypatch.setattr(near, "GATHERED_BYTES", 4 * 5 * 59 * 3)  # three rows at a time
    rows = copies(np.random.default_rng(2))[:60].astype(np.float32).astype(np.float64)
    root = searched(tmp_path, rows, (60,), metric=metric, n_neighbors=59, block_rows=25)
    around = rows - rows.mean(axis=0) if measure == "centered_cosine" else rows
    distances = cdist(around, around, "euclidean" if measure == "l2" else "cosine")
    tried = np.quantile(distances, [0.02, 0.05])
    for threshold in tried.tolist():
        assert found(root, threshold, measure)[1]["group"].to_pylist() == expected(distances, threshold).tolist()
    assert RunLists.of(root, measure).are_stored == (metric == measure)
    assert RunLists.of(root).scale.measure == ("l2" if metric == "inner_product" else metric)


def test_distances_are_in_the_unit_of_the_source(tmp_path: Path) -> None:
    rows = copies(np.random.default_rng(0)) * 1e-30  # packed in another unit, for their squares vanish
    root = searched(tmp_path, rows, (180,))
    assert found(root, 0.1e-30)[1]["group"].to_pylist() == expected(cdist(rows * 1e30, rows * 1e30), 0.1).tolist()


def test_stopped_anywhere_it_goes_on_with_what_is_missing(tmp_path: Path) -> None:
    rows = copies(np.random.default_rng(0))
    root = searched(tmp_path, rows, (60, 60, 60))
    whole, groups = found(root, 0.1)
    names = sorted(path.name for path in (tmp_path / "root/dedup").iterdir())
    made: list[Any] = []

    def counted(function: Any, items: Sequence[Any], description: str, **_: Any) -> Iterator[Any]:
        made.extend(items)
        return local_map(function, items, description)

    for n_done in range(5):  # two files of pairs, three shards
        for path in (tmp_path / "root/dedup").rglob("*.*"):
            if path.is_file():
                path.unlink()
        with pytest.raises(StoppedError):
            found(root, 0.1, mapper=stopping(n_done))
        made.clear()
        again, table_again = found(root, 0.1, mapper=counted)
        assert len(made) == 5 - n_done
        assert table_again.equals(groups)
        assert again == whole
    assert sorted(path.name for path in (tmp_path / "root/dedup").iterdir()) == names
    assert not [name for name in names if name.startswith(PAIRS)]
    assert found(root, 0.1, mapper=stopping(0))[0] == whole  # nothing is left to do
    assert found(root, 0.0)[0].metrics["dropped_rows"] == 0  # another threshold is another result


@pytest.mark.parametrize("block_rows", [1, 17])
def test_blocks_decide_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block_rows: int) -> None:
    root = searched(tmp_path, copies(np.random.default_rng(0)), (100, 80))
    lists = RunLists.of(root)
    whole, tried = found(root, 0.1)[1], survey(lists)
    monkeypatch.setattr(duplicates, "BLOCK_ROWS", block_rows)
    output = dedup_output(lists, 0.1, root.child("other"))
    dedup(lists, 0.1, output)
    assert table(root.child("other")).equals(whole)
    assert survey(lists) == tried


def test_a_survey_says_what_each_threshold_would_drop(tmp_path: Path) -> None:
    root = searched(tmp_path, copies(np.random.default_rng(0)), (180,))
    records = survey(RunLists.of(root))
    assert records[0] == {"threshold": 0.0, "near_share": 0.0, "dropped_share": 0.0}
    assert [one["threshold"] for one in records] == sorted({one["threshold"] for one in records})
    assert records[-1]["near_share"] > 0.45
    for one in records:
        assert found(root, one["threshold"])[0].metrics["dropped_share"] == one["dropped_share"]


def test_refusals(tmp_path: Path) -> None:
    path = write_metric_run(tmp_path)
    opened(path).stage("pack")
    opened(path).stage("train")
    opened(path).stage("embed")
    with pytest.raises(ConfigError, match="no neighbour lists"):
        RunLists.of(Artifact(str(tmp_path / "root")))
    root = searched(tmp_path / "other", copies(np.random.default_rng(0)), (180,))
    with pytest.raises(ConfigError, match="choose from l2, cosine"):
        RunLists.of(root, "dot")  # type: ignore[arg-type]
    for threshold in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="--threshold"):
            dedup_output(RunLists.of(root), threshold, root.child("dedup"))

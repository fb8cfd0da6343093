"""A run that starts from another one keeps the numbers of its clusters."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from distspectral.clustering.lineage import FILE, SCHEMA, earlier_clusters
from distspectral.datasets import write_vectors
from distspectral.orchestration.pipeline import Pipeline
from distspectral.spectral.lineage import UNKNOWN
from distspectral.storage.artifact.directory import MANIFEST, Artifact
from tests.datasets import blobs
from tests.runs import N_ROWS, write_run
from tests.stages.chain import opened, pipeline_upto


def clusters_of(root: Path) -> NDArray[np.int64]:
    return np.concatenate(
        [pq.read_table(path)["cluster"].to_numpy() for path in sorted((root / "output").glob("*.parquet"))]
    )


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("before")
    pipeline_upto(folder, "embed")
    return folder / "root"


def later(folder: Path, before: Path, ids: NDArray[np.int64] | None = None, seed: int = 3) -> Pipeline:
    """Return the pipeline of a finished run of the same rows, of other ids if given, and another seed."""
    path = write_run(folder, start_from=str(before), seed=seed)
    if ids is not None:
        for shard in (folder / "data").iterdir():
            shard.unlink()
        rows, labels = blobs(N_ROWS, 5)
        write_vectors(str(folder / "data"), rows, labels=labels, ids=ids)
    pipeline = opened(path)
    pipeline.run()
    return pipeline


def test_clusters_of_the_same_rows_have_the_same_numbers_whatever_the_seed(before: Path, tmp_path: Path) -> None:
    alone = pipeline_upto(tmp_path / "alone", "embed", seed=3)
    old, unnamed = clusters_of(before), clusters_of(Path(alone.config.root))
    assert (old != unnamed).any(), "else this seed tells nothing"
    pipeline = later(tmp_path / "later", before)
    new = clusters_of(tmp_path / "later/root")
    np.testing.assert_array_equal(old, new)
    table = pq.read_table(tmp_path / "later/root/clusters" / FILE)
    assert table.schema.equals(SCHEMA)
    assert table.to_pylist() == [
        {
            "event": "kept",
            "old": one,
            "new": one,
            "rows": int(np.count_nonzero(old == one)),
            "share_of_old": 1.0,
            "share_of_new": 1.0,
            "known_share": 1.0,
        }
        for one in range(3)
    ]
    facts = pipeline.report()["cluster"]["lineage"]
    assert facts == {"sampled_rows": 120, "known_rows": 120, "kept": 3, "split": 0, "merged": 0, "born": 0, "gone": 0}
    assert (
        pipeline.chain.stages["cluster"]
        .lines(pipeline.report()["cluster"])["since the run before"]
        .startswith("3 kept, 0 split, 0 merged, 0 born, 0 gone")
    )


def test_rows_are_known_by_id_and_not_by_place(before: Path, tmp_path: Path) -> None:
    later(tmp_path, before, ids=np.arange(N_ROWS) + 1000)
    events = pq.read_table(tmp_path / "root/clusters" / FILE)["event"].to_pylist()
    assert events == ["born"] * 3 + ["gone"] * 3


def test_a_run_whose_output_is_gone_is_started_from_all_the_same(before: Path, tmp_path: Path) -> None:
    later(tmp_path, before)
    (before / "output").rename(tmp_path / "away")
    try:
        output = opened(tmp_path / "run.yaml").chain.outputs["cluster"]
        assert output.artifact.is_current(output.fingerprint)
        changed = opened(tmp_path / "run.yaml", "cluster.restarts=3")
        changed.run()
        assert "lineage" not in changed.report()["cluster"]
    finally:
        (tmp_path / "away").rename(before / "output")


def test_other_clusters_of_the_earlier_run_are_another_result(before: Path, tmp_path: Path) -> None:
    path = write_run(tmp_path, start_from=str(before))
    known = opened(path).chain
    manifest = before / "clusters" / MANIFEST
    text = manifest.read_text()
    try:
        manifest.write_text(text.replace(Artifact(str(before / "clusters")).manifest().fingerprint, "another"))
        changed = opened(path).chain
    finally:
        manifest.write_text(text)
    differ = [name for name in known.outputs if known.outputs[name].fingerprint != changed.outputs[name].fingerprint]
    assert differ == ["cluster", "tree", "embed", "exemplars"]


def test_clusters_are_found_by_id_in_whatever_shard(before: Path) -> None:
    ids = np.array([119, 7, 500, 60])
    known = clusters_of(before)
    found = earlier_clusters(Artifact(str(before / "output")), pa.array(ids))
    assert found.tolist() == [known[119], known[7], UNKNOWN, known[60]]
    assert earlier_clusters(Artifact(str(before / "output")), pa.array(["7"])).tolist() == [UNKNOWN]

"""Bad rows set aside by a whole run: every artifact lacks the same rows, in order, and says so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.dataset
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest

from distspectral.config import load_config
from distspectral.datasets import write_vectors
from distspectral.errors import NonFiniteRowError, TooFewRowsError
from distspectral.mapping import local_map
from distspectral.orchestration.engine import LocalEngine
from distspectral.orchestration.new_rows import embed_new_rows
from distspectral.orchestration.observer import SilentObserver
from distspectral.orchestration.pipeline import Pipeline, run
from distspectral.report.rows import Most, row_sample
from distspectral.stages.pack import PackConfig, pack
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.artifact.quarantine import FOLDER
from distspectral.storage.rows.vectors import MappedVectors
from distspectral.storage.source.dataset import Source, SourceConfig
from tests.datasets import blobs, vectors_output
from tests.runs import DIM, N_ROWS, write_run

SIZES = (50, 30, 40)
BAD = (3, *range(50, 80), 100)
"""One row of the first shard, the whole second, one row of the third."""


def write_bad_run(folder: Path, **data: Any) -> Path:
    data = {"path": str(folder / "data"), "id_column": "id", "label_column": "label"} | data
    config = write_run(folder, SIZES, data=data)
    vectors, labels = blobs(N_ROWS, DIM)
    vectors[list(BAD), 2] = np.nan
    write_vectors(str(folder / "data"), vectors, labels=labels, ids=np.arange(N_ROWS) + 1000, sizes=SIZES)
    return config


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = load_config(write_bad_run(tmp_path_factory.mktemp("quarantine"), on_bad_rows="quarantine"))
    run(config, LocalEngine(), SilentObserver())
    return Path(config.root)


GOOD = [row for row in range(N_ROWS) if row not in BAD]


def test_an_error_stays_the_default(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteRowError, match=r"part-00000\.parquet: row 3"):
        run(load_config(write_bad_run(tmp_path)), LocalEngine(), SilentObserver())


def test_packed_vectors_lack_the_rows_shard_by_shard(finished: Path) -> None:
    artifact = Artifact(str(finished / "vectors"))
    assert [shard.n_rows for shard in artifact.manifest().shards] == [49, 0, 39]
    vectors = MappedVectors(artifact)
    np.testing.assert_array_equal(vectors.block(0, vectors.n_rows), blobs(N_ROWS, DIM)[0][GOOD])
    np.testing.assert_array_equal(vectors.gather(np.array([87, 0, 49])), blobs(N_ROWS, DIM)[0][[119, 0, 80]])
    assert vectors.ids().to_pylist() == [1000 + row for row in GOOD]


@pytest.mark.parametrize("stage", ["vectors", "output"])
def test_the_rows_are_kept_with_id_file_row_and_reason(finished: Path, stage: str) -> None:
    folder = finished / stage / FOLDER
    assert sorted(file.name for file in folder.iterdir()) == [f"part-0000{index}.arrow" for index in range(3)]
    rows = [row for file in sorted(folder.iterdir()) for row in pyarrow.ipc.open_file(file).read_all().to_pylist()]
    assert [row["id"] for row in rows] == [1000 + row for row in BAD]
    assert [row["row"] for row in rows] == [3, *range(30), 20]
    assert {row["reason"] for row in rows} == {"NaN or infinity"}
    assert rows[-1]["file"].endswith("data/part-00002.parquet")


def test_output_shard_i_holds_the_good_rows_of_source_shard_i(finished: Path) -> None:
    parts = [pq.read_table(file)["id"].to_pylist() for file in sorted((finished / "output").glob("part-*.parquet"))]
    assert [len(part) for part in parts] == [49, 0, 39]
    assert [one for part in parts for one in part] == [1000 + row for row in GOOD]


def test_whoever_reads_the_output_as_a_dataset_sees_its_rows_only(finished: Path) -> None:
    assert pyarrow.dataset.dataset(str(finished / "output")).count_rows() == len(GOOD)


def test_metrics_and_report_say_how_many_are_missing_and_why(finished: Path) -> None:
    metrics = json.loads((finished / "metrics.json").read_text())
    assert metrics["n_rows"] == 88
    assert metrics["pack"]["quarantine"] == {"n_rows": 32, "reasons": {"NaN or infinity": 32}, "n_shards": 3}
    assert Artifact(str(finished / "output")).manifest().metrics["quarantine"] == metrics["pack"]["quarantine"]
    page = (finished / "report.html").read_text()
    assert "32 of the 120 source rows are missing from every result: NaN or infinity (32)." in page


def test_labels_in_the_report_belong_to_the_rows_that_are_left(finished: Path) -> None:
    output = Artifact(str(finished / "output"))
    shown, _ = row_sample(Artifact(str(finished / "vectors")), output, output.manifest(), 0)
    assert shown.labels == blobs(N_ROWS, DIM)[1][GOOD].tolist()


def test_a_shard_without_rows_is_never_the_sample(finished: Path) -> None:
    vectors, output = (Artifact(str(finished / name)) for name in ("vectors", "output"))
    samples = [row_sample(vectors, output, output.manifest(), seed, Most(shards=1))[0] for seed in range(8)]
    assert {sample.n_rows for sample in samples} == {49, 39}


def test_other_rows_embedded_later_have_their_own_quarantine(finished: Path, tmp_path: Path) -> None:
    rows = blobs(20, DIM, seed=1)[0]
    rows[4] = np.inf
    write_vectors(str(tmp_path / "other"), rows, labels=np.zeros(20, np.int64))
    config = load_config(finished.parent / "run.yaml")
    pipeline = Pipeline(config, Source.open(config.data), LocalEngine(), SilentObserver())
    source = Source.open(config.data.model_copy(update={"path": str(tmp_path / "other")}))
    manifest = embed_new_rows(pipeline, source, str(tmp_path / "embedded"))
    assert manifest.n_rows == 19
    assert manifest.metrics["quarantine"]["n_rows"] == 1


def test_a_lost_quarantine_file_is_damage(finished: Path) -> None:
    artifact = Artifact(str(finished / "vectors"))
    name = f"{FOLDER}/part-00001.arrow"
    assert name in artifact.manifest().files
    content = (finished / "vectors" / name).read_bytes()
    (finished / "vectors" / name).unlink()
    try:
        assert not artifact.is_current(artifact.manifest().fingerprint)
    finally:
        (finished / "vectors" / name).write_bytes(content)


def opened(folder: Path, vectors: Any) -> Source:
    write_vectors(str(folder / "source"), vectors, sizes=(4, 6))
    return Source.open(SourceConfig(path=str(folder / "source"), on_bad_rows="quarantine"))


def test_a_dataset_without_a_usable_row_is_refused(tmp_path: Path) -> None:
    source = opened(tmp_path, np.full((10, 3), np.nan, np.float32))
    with pytest.raises(TooFewRowsError, match=r"none of the dataset's 10 rows can be used \(NaN or infinity: 10\)"):
        pack(source, vectors_output(tmp_path / "vectors", source), PackConfig())


def test_a_shard_that_counts_as_done_has_its_quarantine(tmp_path: Path) -> None:
    vectors = np.arange(30, dtype=np.float32).reshape(10, 3)
    vectors[[1, 7]] = np.nan
    source = opened(tmp_path, vectors)
    output = vectors_output(tmp_path / "vectors", source)

    def dies_after_one(function: Any, items: Any, description: str, *, on_gpu: bool = False) -> Any:
        yield from local_map(function, items[:1], description)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack(source, output, PackConfig(), dies_after_one)
    folder = tmp_path / "vectors" / FOLDER
    assert [file.name for file in folder.iterdir()] == ["part-00000.arrow"]
    manifest = pack(source, output, PackConfig())
    assert manifest.metrics["quarantine"] == {"n_rows": 2, "reasons": {"NaN or infinity": 2}, "n_shards": 2}
    assert [pyarrow.ipc.open_file(file).read_all()["id"].to_pylist() for file in sorted(folder.iterdir())] == [[1], [7]]

"""The stage ``exemplars``: the same rows as by sorting all, however the output is cut."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distspectral.stages import exemplars as module
from distspectral.stages.exemplars import FILE, ExemplarsConfig, exemplars
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.artifact.output import Output
from distspectral.storage.artifact.receipts import write_shard
from tests.stages.chain import pipeline_upto

N_ROWS = 300
COLUMNS = ("embedding", "cluster", "distance", "margin")


def written(folder: Path, sizes: list[int], columns: tuple[str, ...] = COLUMNS) -> tuple[Artifact, pa.Table]:
    """Return an ``output`` artifact of random rows with ties, one source column carried along, and its table."""
    rng = np.random.default_rng(0)
    cluster = rng.choice([0, 1, 3], N_ROWS, p=[0.5, 0.49, 0.01]).astype(np.int32)
    table = pa.table(
        {
            "id": [f"row {number}" for number in range(N_ROWS)],
            "embedding": pa.array([[1.0, 2.0]] * N_ROWS, pa.list_(pa.float32(), 2)),
            "cluster": cluster,
            "distance": rng.integers(0, 40, N_ROWS).astype(np.float32),
            "margin": rng.integers(0, 40, N_ROWS).astype(np.float32),
            "url": [f"page {number}" for number in range(N_ROWS)],
        }
    )
    output = Output(Artifact(str(folder)), "embed", "print", {}, {})
    output.begin()
    cuts = np.cumsum([0, *sizes])

    def put(part: pa.Table) -> Any:
        def write(stream: Any) -> int:
            pq.write_table(part, stream)
            return int(part.num_rows)

        return write

    shards = [
        write_shard(output.artifact, f"part-{index:05d}.parquet", put(table[cuts[index] : cuts[index + 1]]))
        for index in range(len(sizes))
    ]
    output.commit(shards, {"columns": list(columns), "n_clusters": 4}, {})
    return output.artifact, table


def found(folder: Path, rows: Artifact, n_kept: int = 3) -> Any:
    output = Output(Artifact(str(folder)), "exemplars", "print", {}, {})
    manifest = exemplars(rows, output, ExemplarsConfig(n_rows=n_kept))
    return manifest, pq.read_table(folder / FILE) if (folder / FILE).exists() else None


@pytest.mark.parametrize(("sizes", "block_rows"), [([N_ROWS], None), ([1, 199, 100], 7), ([100, 100, 100], 64)])
def test_exemplars_are_the_first_rows_by_distance_and_by_margin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sizes: list[int], block_rows: int | None
) -> None:
    if block_rows:
        monkeypatch.setattr(module, "BLOCK_ROWS", block_rows)
    rows, table = written(tmp_path / "output", sizes)
    manifest, made = found(tmp_path / "exemplars", rows)
    assert made.schema.names == ["cluster", "kind", "rank", "id", "url", "distance", "margin"]
    whole, expected = table.to_pandas().drop(columns="embedding"), []
    for cluster in (0, 1, 3):
        for kind, by in (("central", "distance"), ("border", "margin")):
            best = whole[whole.cluster == cluster].sort_values(by, kind="stable").head(3)
            expected += [(cluster, kind, rank, one.id, one.url) for rank, one in enumerate(best.itertuples())]
    assert [tuple(one.values())[:5] for one in made.to_pylist()] == expected
    assert manifest.properties == {"rows": len(expected)}


def test_one_cluster_has_no_border(tmp_path: Path) -> None:
    rows, table = written(tmp_path / "output", [N_ROWS])
    alone = table.set_column(4, "margin", pa.array(np.full(N_ROWS, np.inf, np.float32)))
    pq.write_table(alone, tmp_path / "output/part-00000.parquet")
    _, made = found(tmp_path / "exemplars", rows)
    assert set(made["kind"].to_pylist()) == {"central"}


def test_an_output_without_the_columns_has_no_exemplars(tmp_path: Path) -> None:
    rows, _ = written(tmp_path / "output", [N_ROWS], ("cluster", "distance"))
    manifest, made = found(tmp_path / "exemplars", rows)
    assert made is None
    assert manifest.properties == {"rows": 0}


def test_a_report_says_why_there_are_none(tmp_path: Path) -> None:
    pipeline = pipeline_upto(tmp_path, "exemplars", embed={"columns": ["cluster"]})
    metrics = pipeline.report()
    (note,) = pipeline.chain.stages["exemplars"].notes(metrics)
    assert "cluster, distance, margin in embed.columns" in note
    assert pipeline.chain.stages["exemplars"].lines(metrics["exemplars"]) == {}


def test_a_run_ends_with_its_exemplars_and_names_their_file(tmp_path: Path) -> None:
    pipeline = pipeline_upto(tmp_path, "exemplars")
    metrics = pipeline.report()
    assert metrics["exemplars"] == {"rows": 2 * 3 * 10, "file": f"exemplars/{FILE}"}
    assert pipeline.chain.stages["exemplars"].notes(metrics) == []
    made = pq.read_table(tmp_path / "root/exemplars" / FILE).to_pandas()
    assert (made.groupby(["cluster", "kind"]).size() == 10).all()
    assert (made.margin >= 0).all()

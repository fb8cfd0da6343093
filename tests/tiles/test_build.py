"""Tiles of a real run: every row once, labels by cuts, however blocks are cut and whenever it is stopped."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest

from distspectral.config import load_config
from distspectral.errors import ConfigError, FingerprintMismatchError, NonFiniteRowError, UnknownColumnError
from distspectral.mapping import local_map
from distspectral.orchestration.engine import LocalEngine
from distspectral.orchestration.observer import SilentObserver
from distspectral.orchestration.pipeline import run
from distspectral.stages.recut import CLUSTERS, recut
from distspectral.stages.recut import Wish as CutWish
from distspectral.storage.artifact.directory import MANIFEST, Artifact
from distspectral.storage.artifact.manifest import Manifest
from distspectral.tiles import build, plan
from distspectral.tiles.build import Wish, make_tiles, tiles_output
from distspectral.tiles.mapped_run import MappedRun
from distspectral.tiles.plan import DENSITY, LABELS
from distspectral.tiles.plane import Plane
from tests.mappers import StoppedError, stopping
from tests.runs import N_ROWS, write_metric_run, write_run

HOSTILE = "<img src=x onerror=alert(1)>'\"; DROP TABLE rows"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Root of a run with a map, texts carried along under a name that tries to be something else."""
    folder = tmp_path_factory.mktemp("tiles") / "a run's <b>"
    path = write_run(folder, data={"path": str(folder / "data"), "id_column": "id", "carry": [HOSTILE, "level"]})
    for shard in sorted((folder / "data").iterdir()):
        table = pq.read_table(shard)
        texts = pa.array([f"</script>{row}" for row in table["id"].to_pylist()])
        pq.write_table(table.append_column(HOSTILE, texts).append_column("level", texts), shard)
    run(load_config(path), LocalEngine(), SilentObserver())
    return folder / "root"


@pytest.fixture
def root(finished: Path, tmp_path: Path) -> Artifact:
    """A copy of it."""
    shutil.copytree(finished, tmp_path / "root")
    return Artifact(str(tmp_path / "root"))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that 120 rows fill some levels and files."""
    for name, value in {"TILE_ROWS": 10, "FILE_ROWS": 20, "BLOCK_ROWS": 7}.items():
        monkeypatch.setattr(plan, name, value)
    monkeypatch.setattr(build, "GROUP_ROWS", 8)


def made(root: Artifact, wish: Wish | None = None, mapper: Any = local_map) -> tuple[Manifest, pa.Table]:
    opened, wish = MappedRun.of(root), wish or Wish()
    artifact = root.child("tiles")
    manifest = make_tiles(opened, wish, tiles_output(opened, wish, artifact), mapper)
    tables = [pq.read_table(f"{artifact.path}/{shard.name}") for shard in manifest.shards]
    return manifest, pa.concat_tables(tables)


def rewrite(root: Artifact, column: str, value: Any, row: int) -> str:
    """Replace one value of a row of the output's first shard; return the shard's name."""
    shard = sorted(Path(f"{root.path}/output").glob("*.parquet"))[0]
    table = pq.read_table(shard)
    values = table[column].to_pylist()
    values[row] = value
    pq.write_table(table.set_column(table.schema.get_field_index(column), column, pa.array(values)), shard)
    return shard.name


def rows_of(root: Artifact) -> pa.Table:
    return pa.dataset.dataset(f"{root.path}/output").to_table()


def by_id(table: pa.Table) -> pa.Table:
    return table.sort_by("id")


@pytest.mark.usefixtures("small")
def test_every_row_is_there_once_on_the_level_and_tile_that_it_names(root: Artifact) -> None:
    manifest, table = made(root)
    own = by_id(rows_of(root))
    for column in ("id", "x", "y", "cluster", "leaf", "is_outlier"):
        assert by_id(table)[column].to_pylist() == own[column].to_pylist()
    assert manifest.n_rows == manifest.properties["n_rows"] == N_ROWS
    levels = manifest.properties["levels"]
    assert len(levels) > 2
    assert [one["rows"] for one in levels] == np.bincount(table["level"].to_numpy()).tolist()
    assert sum(one["files"] for one in levels) == len(manifest.shards)
    left, lower, side = manifest.properties["square"]
    size = side / 2.0 ** table["level"].to_numpy()
    for tile, place, edge in (("tile_x", "x", left), ("tile_y", "y", lower)):
        assert table[tile].to_pylist() == np.floor((table[place].to_numpy() - edge) / size).astype(int).tolist()
    for shard in manifest.shards:
        part = pq.read_table(f"{root.path}/tiles/{shard.name}")
        assert shard.name.startswith(f"level-{shard.details['level']:02d}-")
        assert set(part["level"].to_pylist()) == {shard.details["level"]}
        along = Plane(left, lower, side).morton(part["x"].to_numpy(), part["y"].to_numpy()).astype(np.int64)
        assert (np.diff(along) >= 0).all(), "rows follow the curve"
    assert pa.dataset.dataset(f"{root.path}/tiles").count_rows() == N_ROWS, "the folder opens"


@pytest.mark.usefixtures("small")
def test_labels_are_cuts_of_the_tree_the_finest_first_and_outliers_have_none(root: Artifact) -> None:
    opened, wish = MappedRun.of(root), Wish(layers=(2, 7, 3))
    rewrite(root, "is_outlier", True, 5)
    manifest = make_tiles(opened, wish, tiles_output(opened, wish, root.child("tiles")))
    table = pa.dataset.dataset(f"{root.path}/tiles").to_table()
    assert manifest.properties["layers"] == [7, 3, 2]
    outliers = np.array(table["is_outlier"])
    assert np.count_nonzero(outliers) >= 1
    for number, size in enumerate((7, 3, 2)):
        of_leaf = pq.read_table(f"{recut(root, CutWish(n_clusters=size)).artifact.path}/{CLUSTERS}")["cluster"]
        expected = np.where(outliers, -1, of_leaf.to_numpy()[table["leaf"].to_numpy()])
        assert table[f"label_{number}"].to_pylist() == expected.tolist()
        assert table[f"label_{number}"].type == pa.int32()
    assert (table["label_1"].to_numpy() == table["cluster"].to_numpy())[~outliers].all(), "3 is the run's own number"


@pytest.mark.usefixtures("small")
def test_labels_have_places_and_cells_have_counts(root: Artifact) -> None:
    opened, wish = MappedRun.of(root), Wish(names={0: HOSTILE})
    rewrite(root, "is_outlier", True, 5)
    left, lower, side = make_tiles(opened, wish, tiles_output(opened, wish, root.child("tiles"))).properties["square"]
    table = pa.dataset.dataset(f"{root.path}/tiles").to_table()
    records = json.loads(Path(f"{root.path}/tiles/{LABELS}").read_text())
    assert {one["text"] for one in records if one["node"] == 0} == {HOSTILE}
    for one in records:
        mine = table.filter(pa.compute.field(f"label_{one['layer']}") == one["label"])
        assert one["priority"] == mine.num_rows, "outliers count for no label"
        assert mine["x"].to_numpy().min() <= one["x"] <= mine["x"].to_numpy().max()
    density = np.load(f"{root.path}/tiles/{DENSITY}")
    assert density.sum() == N_ROWS
    x, y = table["x"].to_numpy(), table["y"].to_numpy()
    edges = [[lower, lower + side], [left, left + side]]
    assert (density == np.histogram2d(y, x, bins=density.shape, range=edges)[0]).mean() > 0.99  # but for edges of cells


@pytest.mark.usefixtures("small")
def test_no_task_holds_more_than_a_block_or_a_file(root: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    blocks = build.blocks

    def counted(*arguments: Any) -> Iterator[pa.RecordBatch]:
        for block in blocks(*arguments):
            read.append(block.num_rows)
            yield block

    monkeypatch.setattr(build, "blocks", counted)
    monkeypatch.setattr(plan, "blocks", counted)
    manifest, _ = made(root)
    assert max(read) == 7
    assert max(shard.n_rows for shard in manifest.shards) < 20 + 5 * 5
    assert len(manifest.shards) > N_ROWS / 20
    largest = max(manifest.shards, key=lambda shard: shard.n_rows)
    assert pq.read_metadata(f"{root.path}/tiles/{largest.name}").row_group(0).num_rows == 8


@pytest.mark.usefixtures("small")
def test_blocks_decide_nothing(root: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    _, table = made(root)
    monkeypatch.setattr(plan, "BLOCK_ROWS", 1000)
    shutil.rmtree(f"{root.path}/tiles")
    assert made(root)[1].equals(table)


@pytest.mark.usefixtures("small")
def test_stopped_anywhere_it_goes_on_with_what_is_missing(root: Artifact) -> None:
    whole, rows = made(root)
    names = sorted(path.name for path in Path(f"{root.path}/tiles").iterdir())
    assert not [name for name in names if name.startswith((build.PIECES, ".plan"))]
    again: list[str] = []

    def counted(function: Any, items: Sequence[Any], description: str, **_: Any) -> Iterator[Any]:
        again.extend([description] * len(items))
        return local_map(function, items, description)

    n_files = len(whole.shards)
    for n_done in (0, 2, 4, 6, 7, 8, 9, 10, 9 + n_files - 1):  # three shards are measured, counted and cut
        shutil.rmtree(f"{root.path}/tiles")
        with pytest.raises(StoppedError):
            made(root, mapper=stopping(n_done))
        assert not Path(f"{root.path}/tiles/.manifest.json").exists()
        again.clear()
        manifest, table = made(root, mapper=counted)
        assert table.equals(rows)
        assert manifest == whole
        assert again.count("measuring the map") == (0 if n_done >= 6 else 3)
        assert again.count("cutting shards into tiles") == 3 - min(max(n_done - 6, 0), 3)
        assert again.count("writing tiles") == n_files - max(n_done - 9, 0)
        assert sorted(path.name for path in Path(f"{root.path}/tiles").iterdir()) == names
    assert made(root, mapper=stopping(0))[0] == whole, "nothing is left to do"
    Path(f"{root.path}/tiles/{build.PIECES}00000.arrow").write_text("left by a process that died while it tidied up")
    assert made(root, mapper=stopping(0))[0] == whole
    assert sorted(path.name for path in Path(f"{root.path}/tiles").iterdir()) == names
    assert made(root, Wish(layers=(2,)))[0].properties["layers"] == [2], "another wish is another result"


@pytest.mark.usefixtures("small")
def test_carried_columns_come_along_whatever_they_are_called(root: Artifact) -> None:
    manifest, table = made(root, Wish(carry=(HOSTILE,)))
    assert table[HOSTILE].to_pylist() == [f"</script>{one}" for one in table["id"].to_pylist()]
    assert manifest.properties["carried"] == [HOSTILE]
    with pytest.raises(UnknownColumnError, match="no carried column 'text'; there are <img"):
        made(root, Wish(carry=("text",)))
    with pytest.raises(ConfigError, match="a column 'level' of their own"):
        made(root, Wish(carry=("level",)))


def test_wide_rows_make_smaller_files(root: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "FILE_BYTES", 30 * plan.OWN_BYTES)
    assert len(made(root)[0].shards) == 4
    shutil.rmtree(f"{root.path}/tiles")
    assert len(made(root, Wish(carry=(HOSTILE,)))[0].shards) > 4


def test_a_run_without_a_map_or_with_broken_places_is_refused(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "none")
    shutil.rmtree(tmp_path / "none/map")
    with pytest.raises(ConfigError, match=r"has no map; set map\.enabled"):
        MappedRun.of(Artifact(str(tmp_path / "none")))
    shutil.copytree(finished, tmp_path / "left")  # a map of before it was disabled
    output = tmp_path / "left/output" / MANIFEST
    told = json.loads(output.read_text())
    del told["inputs"]["map"]
    told["properties"]["columns"] = [one for one in told["properties"]["columns"] if one not in ("x", "y")]
    output.write_text(json.dumps(told))
    with pytest.raises(ConfigError, match=r"the run has no map; set map\.enabled"):
        MappedRun.of(Artifact(str(tmp_path / "left")))
    metric = load_config(write_metric_run(tmp_path / "metric"))
    run(metric, LocalEngine(), SilentObserver())
    with pytest.raises(ConfigError, match="objective dscl has no map"):
        MappedRun.of(Artifact(metric.root))
    shutil.copytree(finished, tmp_path / "other")
    tree = tmp_path / "other/tree" / MANIFEST
    tree.write_text(json.dumps(json.loads(tree.read_text()) | {"fingerprint": "0" * 16}))
    with pytest.raises(FingerprintMismatchError, match=r"other/output: was made from another .*/tree"):
        MappedRun.of(Artifact(str(tmp_path / "other")))
    shutil.copytree(finished, tmp_path / "broken")
    root = Artifact(str(tmp_path / "broken"))
    opened = MappedRun.of(root)
    with pytest.raises(NonFiniteRowError, match=f"{rewrite(root, 'x', np.nan, 3)}: a place on the map is no number"):
        make_tiles(opened, Wish(), tiles_output(opened, Wish(), root.child("tiles")))

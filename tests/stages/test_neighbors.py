"""The stage ``neighbors`` through cells: the same graph however it is cut, interrupted or handed out."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from distspectral.datasets import Mixture
from distspectral.graph.config import AffinityConfig, GraphConfig
from distspectral.graph.knn import knn_graph
from distspectral.graph.search.cells import Cells
from distspectral.graph.search.costs import bytes_per_row
from distspectral.graph.search.through_cells import search_cells
from distspectral.graph.search.tuning import Forecast, Setting
from distspectral.graph.store import MappedGraph, read_neighbors
from distspectral.mapping import local_map
from distspectral.stages.graph import affinities
from distspectral.stages.neighbors import neighbors
from distspectral.stages.pack import PackConfig
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.artifact.output import Output
from distspectral.storage.rows.vectors import ArrayVectors
from tests.datasets import packed

CONFIG = GraphConfig(n_neighbors=6, method="cells", block_rows=700, solver="exact")
ROWS = Mixture(8, intrinsic_dim=3, n_clusters=4).rows(0, 4000)[0]


def output(folder: Path) -> Output:
    return Output(Artifact(str(folder)), "neighbors", "fingerprint", {}, {})


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.glob("*.arrow"))}


def lists(folder: Path, manifest):
    parts = [read_neighbors(Artifact(str(folder)), shard.name) for shard in manifest.shards]
    return tuple(np.concatenate(arrays) for arrays in zip(*parts, strict=True))


def exact_distances(rows, k):
    rows = rows.astype(np.float64)
    distances = cdist(rows, rows, "sqeuclidean")
    np.fill_diagonal(distances, np.inf)
    return np.sort(distances, axis=1)[:, :k]


def whole(ids, squared, n_rows):
    """Whether every list is full, ascending, without the row itself and without repeats."""
    own = np.arange(n_rows)[:, None]
    ordered = np.sort(ids, axis=1)
    assert np.isfinite(squared).all()
    assert (np.diff(squared, axis=1) >= 0).all()
    assert not (ids == own).any()
    assert (np.diff(ordered, axis=1) > 0).all()


@pytest.fixture(scope="module")
def vectors(tmp_path_factory):
    return packed(tmp_path_factory.mktemp("rows"), ROWS, sizes=(1000, 1, 1999, 1000))


@pytest.fixture(scope="module")
def expected(tmp_path_factory, vectors):
    folder = tmp_path_factory.mktemp("expected")
    return folder, neighbors(vectors, output(folder / "n"), CONFIG)


@pytest.fixture(scope="module")
def undying(tmp_path_factory, vectors):
    """What a search asks its mapper for."""
    mapper = Fragile(999)
    neighbors(vectors, output(tmp_path_factory.mktemp("undying") / "n"), CONFIG, mapper)
    return mapper


class Interrupted(Exception):
    pass


class Fragile:
    """Runs items in reverse order and dies after some; remembers what was asked and done of each step."""

    def __init__(self, n_survive: int) -> None:
        self.left = n_survive
        self.asked: Counter[str] = Counter()
        self.done: Counter[str] = Counter()
        self.on_gpu: set[str] = set()

    def __call__(self, function, items, description, *, on_gpu=False):
        self.asked[description] = len(items)
        self.on_gpu |= {description} if on_gpu else set()
        for item in reversed(items):
            if not self.left:
                raise Interrupted
            self.left -= 1
            self.done[description] += 1
            yield function(item)


def test_recall_reaches_the_target_and_the_prediction_holds(expected):
    folder, manifest = expected
    ids, squared = lists(folder / "n", manifest)
    whole(ids, squared, 4000)
    recall = np.mean(squared <= exact_distances(ROWS, 6)[:, -1:] * (1 + 1e-6))
    assert recall >= 0.98
    assert abs(manifest.metrics["predicted_recall"] - recall) < 0.01
    assert 0 < manifest.metrics["predicted_recall_error"] < 0.005
    assert manifest.metrics["predicted_copies"] == pytest.approx(manifest.metrics["copies"])  # all rows were seen
    assert manifest.metrics["copies_error"] == 0
    assert abs(manifest.metrics["reached_recall"] - recall) < 0.01
    assert manifest.metrics["cells"] > 2
    assert manifest.metrics["copies"] > 1


def test_no_scratch_files_stay_behind(expected):
    folder, manifest = expected
    assert [path.name for path in sorted((folder / "n").glob("*.arrow"))] == [shard.name for shard in manifest.shards]


def test_another_cut_into_shards_gives_the_same_files(tmp_path, expected):
    neighbors(packed(tmp_path, ROWS, sizes=(4000,)), output(tmp_path / "n"), CONFIG)
    assert digests(tmp_path / "n") == digests(expected[0] / "n")


def test_rows_in_memory_give_the_same_graph_as_shards(expected):
    folder, manifest = expected
    graph, facts = knn_graph(ArrayVectors(ROWS), CONFIG, AffinityConfig(kind="uniform"))
    np.testing.assert_array_equal(graph.block(0, 4000)[0], lists(folder / "n", manifest)[0])
    assert facts["reached_recall"] == manifest.metrics["reached_recall"]


@pytest.mark.parametrize("share", [0, 0.1, 0.25, 0.4, 0.55, 0.7, 0.85, 0.95])
def test_an_interrupted_search_redoes_only_what_is_missing(tmp_path, vectors, expected, undying, share):
    first, again = Fragile(int(share * undying.asked.total())), Fragile(999)
    with pytest.raises(Interrupted):
        neighbors(vectors, output(tmp_path / "n"), CONFIG, first)
    if first.done["merging neighbours"]:
        assert not list((tmp_path / "n").glob("route-*")), "solved cells need them no more"
    neighbors(vectors, output(tmp_path / "n"), CONFIG, again)
    assert digests(tmp_path / "n") == digests(expected[0] / "n")
    for step in ("exact neighbours of a sample", "routing rows to cells", "searching cells", "merging neighbours"):
        assert again.asked[step] == undying.asked[step] - first.done[step], step
    if first.done["choosing cells"]:
        assert not any("sample" in step for step in again.asked if again.asked[step])


def test_steps_that_an_accelerator_speeds_up_ask_for_one(undying):
    assert undying.on_gpu == {"exact neighbours of a sample", "choosing cells", "searching cells"}


def test_half_precision_vectors_are_routed_as_they_are(tmp_path):
    halves = ROWS.astype(np.float16)
    manifest = neighbors(packed(tmp_path, ROWS, config=PackConfig(dtype="float16")), output(tmp_path / "n"), CONFIG)
    graph, _ = knn_graph(ArrayVectors(halves), CONFIG, AffinityConfig(kind="uniform"))
    np.testing.assert_array_equal(lists(tmp_path / "n", manifest)[0], graph.block(0, 4000)[0])


def test_links_of_the_stages_are_those_in_memory(tmp_path):
    rows = np.concatenate([ROWS[:1500], ROWS[1500:1600] + 500, ROWS[1600:1640] - 500]).astype(np.float32)
    config, affinity = CONFIG.model_copy(update={"connect": "nearest"}), AffinityConfig(scale_neighbor=3)
    manifest = neighbors(packed(tmp_path, rows, sizes=(1640,)), output(tmp_path / "n"), config)
    assert manifest.metrics["links"] >= 2
    graph_output = Output(Artifact(str(tmp_path / "g")), "graph", "fingerprint", {}, {})
    facts = affinities(Artifact(str(tmp_path / "n")), graph_output, affinity).properties
    assert facts["components"] == 1
    expected, _ = knn_graph(ArrayVectors(rows), config, affinity)
    for written, wanted in zip(MappedGraph(graph_output.artifact).block(0, 1640), expected.block(0, 1640), strict=True):
        np.testing.assert_array_equal(written, wanted)


# ---- bad input ---------------------------------------------------------------------------------------------------


def searched(rows, **changes):
    config = CONFIG.model_copy(update={"block_rows": 500, **changes})
    graph, facts = knn_graph(ArrayVectors(rows), config, AffinityConfig(kind="uniform"))
    ids, affinities = graph.block(0, len(rows))
    assert (affinities > 0).all()
    pairs = zip(rows[ids].astype(np.float64), rows, strict=True)
    distances = np.stack([np.square(near - row).sum(axis=1) for near, row in pairs])
    return ids, distances, facts


def recall_of(rows, distances, k=6):
    return np.mean(distances <= exact_distances(rows, k)[:, -1:] * (1 + 1e-5) + 1e-12)


def test_thousands_of_duplicates_fill_no_cell_and_lose_no_neighbour():
    rows = ROWS[:3000].copy()
    rows[np.random.default_rng(0).permutation(3000)[:2000]] = rows[7]
    ids, distances, facts = searched(rows)
    assert recall_of(rows, distances) > 0.98
    assert facts["largest_cell_rows"] < 1500
    assert facts["surplus_duplicates"] > 1900
    equal = np.flatnonzero((rows == rows[7]).all(axis=1))
    np.testing.assert_array_equal(ids[equal[-1]], equal[:6])


def test_duplicates_scattered_over_many_blocks_fill_no_cell():
    rows = ROWS[:3000].copy()
    rows[np.random.default_rng(0).permutation(3000)[:2000]] = rows[7]
    ids, distances, facts = searched(rows, block_rows=20)  # of each block seven travel
    assert recall_of(rows, distances) > 0.98
    assert facts["largest_cell_rows"] < 300
    equal = np.flatnonzero((rows == rows[7]).all(axis=1))
    np.testing.assert_array_equal(ids[equal[-1]], equal[:6])


@pytest.mark.parametrize("kind", ["constant dimension", "one cluster", "far", "line", "two values"])
def test_odd_data_reach_the_target(kind):
    rows = ROWS[:3000].copy()
    if kind == "constant dimension":
        rows[:, 2] = 5
    if kind == "one cluster":
        rows[20:] = 1e-3 * np.random.default_rng(1).standard_normal((2980, 8))
    if kind == "far":
        rows += 300
    if kind == "line":
        rows = rows[:, :1].copy()
    if kind == "two values":
        rows = np.repeat(ROWS[:2], 1500, axis=0)
    ids, distances, _ = searched(rows)
    assert not (ids == np.arange(len(rows))[:, None]).any()
    assert recall_of(rows, distances) > 0.975


def test_wide_vectors_work():
    rows = ROWS[:1000] @ np.random.default_rng(0).standard_normal((8, 2048)).astype(np.float32)
    _, distances, _ = searched(rows)
    assert recall_of(rows, distances) > 0.97


@pytest.mark.parametrize("n_rows", [7, 8, 20, 150])
def test_hardly_more_rows_than_neighbours_work(n_rows):
    _, distances, _ = searched(ROWS[:n_rows])
    assert recall_of(ROWS[:n_rows], distances) == 1


def test_zero_vectors_under_cosine_work():
    rows = ROWS[:2000].copy()
    rows[100:400] = 0
    ids, _, _ = searched(rows, metric="cosine")
    np.testing.assert_array_equal(ids[399], np.arange(100, 106))


def search_by(folder, rows, setting=None, **changes):
    """Return ids, squared distances, facts and setting of a search, tuned by itself or as it is told."""
    artifact = Artifact(str(folder))
    config = CONFIG.model_copy(update={"metric": "l2", "block_rows": 500, **changes})
    if setting is not None:
        setting.write(artifact)
    found = search_cells(ArrayVectors(rows), artifact, {}, config, local_map)
    return *lists(folder, found), found.metrics, Setting.read(artifact)


def test_rows_whose_cells_are_smaller_than_k_are_completed(tmp_path):
    cells = Cells(np.unique(ROWS[:300], axis=0), 0, 0.0)
    groups = np.arange(len(cells), dtype=np.int32) // 40
    setting = Setting(cells, groups, "exact", 1.0, Forecast(0.5, 0.0, 1.0, 0.0, 1.0, 1.0, 1.0))
    ids, squared, facts, _ = search_by(tmp_path, ROWS[:1200], setting)
    assert facts["completed_rows"] > 100
    whole(ids, squared, 1200)


def test_a_cell_beyond_memory_gives_the_same_graph(tmp_path):
    expected_ids, _, facts, setting = search_by(tmp_path / "whole", ROWS[:2500])
    assert facts["largest_cell_rows"] > 200
    few = 200 * bytes_per_row("exact", 8, 6)
    np.testing.assert_array_equal(search_by(tmp_path / "few", ROWS[:2500], setting, task_memory=few)[0], expected_ids)


# ---- a killed driver ---------------------------------------------------------------------------------------------

LARGE = CONFIG.model_copy(update={"block_rows": 1500})
STAGE = """
import sys
from tests import kill
kill.after_receipts(f"n/{sys.argv[3]}-")
from distspectral.graph.config import GraphConfig
from distspectral.mapping import local_map
from distspectral.stages.neighbors import neighbors
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.artifact.output import Output

config = GraphConfig(n_neighbors=6, method="cells", block_rows=1500, solver="exact")
neighbors(Artifact(sys.argv[1]), Output(Artifact(sys.argv[2]), "neighbors", "fingerprint", {}, {}), config)
"""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Enough rows for a kill to meet them, and what the stage writes of them when it is left alone."""
    folder = tmp_path_factory.mktemp("undisturbed")
    vectors = packed(folder, Mixture(8, intrinsic_dim=3, n_clusters=4).rows(0, 20_000)[0], sizes=(20_000,))
    neighbors(vectors, output(folder / "n"), LARGE)
    return vectors, digests(folder / "n")


@pytest.mark.parametrize("step", ["route", "cell", "part"])
def test_a_driver_killed_in_a_step_goes_on_and_writes_the_same_bits(tmp_path, undisturbed, step):
    vectors, expected = undisturbed
    folder = tmp_path / "n"
    command = [sys.executable, "-c", STAGE, str(vectors.uri), str(folder), step]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    receipts = [path.stem for path in folder.glob(f".receipts/{step}-*.json")]
    assert len(receipts) == 1
    assert not (folder / ".manifest.json").exists()
    finished = {name: (folder / name).stat().st_mtime_ns for name in receipts if name.startswith("part-")}
    neighbors(vectors, output(folder), LARGE)
    assert finished == {name: (folder / name).stat().st_mtime_ns for name in finished}, "finished parts are left as is"
    assert digests(folder) == expected

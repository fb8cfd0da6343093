from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyarrow import fs

from distspectral.config import RunConfig, check, load_config, parse_config
from distspectral.config.check import check_writable
from distspectral.datasets import write_vectors
from distspectral.errors import (
    ConfigError,
    DistSpectralError,
    MissingDependencyError,
    OutputNotWritableError,
    TooFewRowsError,
    TooManyClustersError,
)
from distspectral.models.trunks import find_trunk
from distspectral.storage.filesystems import resolve
from distspectral.storage.source.dataset import Source
from tests.runs import write_metric_run, write_run
from tests.storage.s3 import S3Server

N_ROWS = 40


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    write_vectors(str(folder), np.random.default_rng(0).standard_normal((N_ROWS, 3)).astype(np.float32))
    return folder


def checked(data: Path, *overrides: str) -> RunConfig:
    base = [f"data.path={data}", f"root={data.parent}/runs/x", "spectral.n_components=4", "spectral.oversampling=2"]
    base.append("ray.workers=2")
    config = parse_config("name: x", "run.yaml", [*base, *overrides])
    check(config, Source.open(config.data))
    return config


def test_a_sound_run_passes_and_leaves_nothing_behind(data: Path) -> None:
    before = sorted(data.parent.rglob("*"))
    checked(data)
    assert sorted(data.parent.rglob("*")) == before


@pytest.mark.parametrize(
    ("override", "kind", "message"),
    [
        ("cluster.n_clusters=41", TooManyClustersError, "is 41, but data.path holds 40 rows"),
        ("graph.n_neighbors=40", TooFewRowsError, "needs at least 41"),
        ("spectral.n_components=39", TooFewRowsError, "41 functions are to be trained"),
        ("affinity.scale_neighbor=16", ConfigError, "affinity.scale_neighbor"),
        ("train.batch_size=1", ConfigError, "train.batch_size: is 1 per step for 2 workers"),
        ("siamese.batch_size=3", ConfigError, "siamese.batch_size: is 3 per step for 2 workers"),
        ("train.inputs=[code]", ConfigError, "asks for code, which needs representation = code or pca; it is auto"),
        ("train.inputs=[vector,vector]", ConfigError, "names one twice"),
    ],
)
def test_values_that_contradict_the_data_or_each_other_are_refused(
    data: Path, override: str, kind: type[DistSpectralError], message: str
) -> None:
    with pytest.raises(kind, match=message) as caught:
        checked(data, override)
    assert type(caught.value) is kind


def test_few_rows_have_as_many_functions_as_they_carry_unless_a_number_is_asked_for(data: Path) -> None:
    few = ["spectral.n_components=null", "spectral.oversampling=null", "cluster.n_clusters=auto"]
    checked(data, *few)
    checked(data, *few, "graph.n_neighbors=5")
    with pytest.raises(ConfigError, match=r"affinity\.scale_neighbor: is 7"):
        checked(data, *few, "graph.n_neighbors=5", "affinity.scale_neighbor=7")
    for asked in ("spectral.n_components=41", "spectral.n_components=36"):
        with pytest.raises(TooFewRowsError, match="functions are to be trained"):
            checked(data, *few, asked)


def test_the_greatest_values_that_fit_pass(data: Path) -> None:
    checked(data, "cluster.n_clusters=40", "graph.n_neighbors=39", "spectral.n_components=38", "train.batch_size=2")


def test_a_root_that_cannot_be_a_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for root in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OutputNotWritableError, match="choose another root"):
            check_writable(str(root))
    with pytest.raises(ConfigError, match="nosuch://bucket/x: is no place"):
        check_writable("nosuch://bucket/x")
    if Path("/proc").is_dir():
        with pytest.raises(OutputNotWritableError, match="cannot be written"):
            check_writable("/proc/nothing-can-be-made-here")


def test_missing_faiss_is_told_before_the_run(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec

    def without_faiss(name: str, *rest: Any) -> Any:
        return None if name == "faiss" else real(name, *rest)

    monkeypatch.setattr(importlib.util, "find_spec", without_faiss)
    with pytest.raises(MissingDependencyError, match="pip install"):
        checked(data)


def test_trainings_that_this_run_leaves_out_may_say_anything(data: Path) -> None:
    checked(data, "affinity.space=euclidean", "siamese.batch_size=1", "autoencoder.batch_size=1")  # narrow: no codes
    with pytest.raises(ConfigError, match=r"autoencoder\.batch_size: is 1"):
        checked(data, "representation=code", "autoencoder.batch_size=1")
    checked(data, "representation=code", "train.inputs=[vector,code,siamese]")
    with pytest.raises(ConfigError, match=r"asks for siamese, which needs affinity\.space = siamese"):
        checked(data, "affinity.space=euclidean", "train.inputs=[siamese]")


def test_a_metric_sees_the_vectors_alone(tmp_path: Path) -> None:
    config = load_config(write_metric_run(tmp_path), ["train.inputs=[code]"])
    with pytest.raises(ConfigError, match="is for objective spectral"):
        check(config, Source.open(config.data))


def test_a_metric_carries_no_columns(tmp_path: Path) -> None:
    config = load_config(write_metric_run(tmp_path), ["data.carry=[label]"])
    with pytest.raises(ConfigError, match=r"data\.carry: is for objective spectral, not dscl.* by id"):
        check(config, Source.open(config.data))


def test_pictures_have_as_many_values_as_rows_and_one_channel_or_three(data: Path, tmp_path: Path) -> None:
    checked(data, "data.image_shape=[1,3]")
    checked(data, "data.image_shape=[3,1,1]")
    with pytest.raises(ConfigError, match=r"data\.image_shape: 2 x 3 makes 6 values, rows have 3"):
        checked(data, "data.image_shape=[2,3]")
    wide = tmp_path / "wide"
    write_vectors(str(wide), np.random.default_rng(0).standard_normal((N_ROWS, 20)).astype(np.float32))
    with pytest.raises(ConfigError, match="is 2 x 5 x 2, expected 1 or 3 channels"):
        checked(wide, "data.image_shape=[2,5,2]")


def test_carried_columns_with_a_name_of_ours_are_refused_before_the_run(tmp_path: Path) -> None:
    config = load_config(write_run(tmp_path), ["data.carry=[id]", "data.id_column=label"])
    with pytest.raises(ConfigError, match=r"the column 'id' of .* rename it there"):
        check(config, Source.open(config.data))


# ---- where artifacts go ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "root"),
    [
        ("data", "data"),
        ("data", "data/"),
        ("data/", "data/runs/x"),
        ("file://DIR/data", "data/run"),
        ("data", "file://DIR/data/run"),
        ("data/**", "data/run"),
        ("data/*/*/*.parquet", "data/run"),
        ("data/../data", "data/run"),
        ("link", "data/run"),
        ("data", "link/run"),
    ],
)
def test_a_root_whose_artifacts_would_be_shards_is_refused(data: Path, path: str, root: str) -> None:
    (data.parent / "link").symlink_to(data)
    if "*/*/" in path:
        (data / "a" / "b").mkdir(parents=True)
        (data / "part-00000.parquet").rename(data / "a" / "b" / "c.parquet")
    paths, where = (
        text.replace("DIR", str(data.parent)) if "://" in text else f"{data.parent}/{text}" for text in (path, root)
    )
    with pytest.raises(ConfigError, match=r"root: is .*inside data\.path"):
        checked(data, f"data.path={paths}", f"root={where}")


@pytest.mark.parametrize(
    ("path", "root"),
    [
        ("data", "data-2"),
        ("data/*.parquet", "data/run"),
        ("data", "data/_run"),
        ("data", "data/.run"),
        ("data/part-00000.parquet", "data/run"),
        ("data", "."),
    ],
)
def test_a_root_that_no_shard_is_sought_in_passes(data: Path, path: str, root: str) -> None:
    checked(data, f"data.path={data.parent}/{path}", f"root={data.parent}/{root}")


@pytest.mark.parametrize("folder", ["output", "vectors", "model"])
def test_data_where_the_run_writes_are_refused(data: Path, folder: str) -> None:
    moved = data.parent / "runs" / "x" / folder / "mine"
    moved.parent.mkdir(parents=True)
    data.rename(moved)
    for path in (moved, moved / "part-00000.parquet", f"{moved}/*"):
        with pytest.raises(ConfigError, match=r"data\.path: .*lies in .*runs/x \(root\), where this run writes"):
            checked(data, f"data.path={path}")


def test_a_root_in_the_bucket_of_the_data_is_judged_likewise(data: Path, s3: S3Server) -> None:
    filesystem, place = resolve(s3.uri("judged"))
    fs.copy_files(str(data), place, destination_filesystem=filesystem)
    with pytest.raises(ConfigError, match=r"root: is .*inside data\.path"):
        checked(data, f"data.path={s3.uri('judged')}", f"root={s3.uri('judged/run')}")
    checked(data, f"data.path={s3.uri('judged')}", f"root={s3.uri('judged-2')}")


# ---- sizes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("network.hidden=[1000000000]", r"network\.hidden: makes a layer of 1,000,000,000 units, .*1,048,576"),
        (
            "network.hidden=[1000000, 1000000]",
            r"network\.hidden: makes a network 13-1000000-.*takes 14,9",
        ),
        ("siamese.n_components=1000000000", r"siamese\.n_components: makes a layer of 1,000,000,000 units"),
        ("siamese.hidden=[900000, 900000]", r"siamese\.hidden: makes a network"),
        ("train.batch_size=100000000000", r"train\.batch_size: is 100,000,000,000, of which each of 2 workers .*GiB"),
        ("siamese.batch_size=100000000000", r"siamese\.batch_size: is 100,000,000,000"),
        ("cluster={n_clusters: 5, sample_rows: 4}", r"cluster\.n_clusters: is 5, but k-means sees 4 rows"),
    ],
)
def test_what_no_machine_has_memory_for_is_refused_with_numbers(data: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        checked(data, override)
    assert all(parameter in str(caught.value) for parameter in caught.value.parameters)


# ---- code of the user's own ----------------------------------------------------------------------------------------


def test_a_trunk_is_found_without_running_its_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "mine" / "nets"
    package.mkdir(parents=True)
    for folder in (package.parent, package):
        (folder / "__init__.py").write_text("raise SystemExit('imported')")
    (package / "small.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    for module in ("mine.nets.small", "mine.nets", "mine"):
        assert find_trunk(f"{module}:net") == (module, "net")
    for name in ("mine.nets.large:net", "mine.small:net", "mine.nets.small.deeper:net", "nowhere:net"):
        with pytest.raises(ConfigError, match=r"network\.trunk: .*there is no module"):
            find_trunk(name)
    for name in ("..x:y", ".x:y", "x:", ":y", "x", "x:y:z", "x y:z", "x/y:z", "", "x..y:z"):
        with pytest.raises(ConfigError, match="expected module:callable"):
            find_trunk(name)
    assert not [name for name in sys.modules if name.partition(".")[0] == "mine"]


def test_validate_runs_no_code_of_a_trunk_and_a_run_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "evil.py").write_text(f"import pathlib\npathlib.Path({str(tmp_path / 'ran')!r}).touch()\nnet = None\n")
    monkeypatch.syspath_prepend(tmp_path)
    config = load_config(write_metric_run(tmp_path), ["network.trunk=evil:net"])
    source = Source.open(config.data)
    check(config, source, imports=False)
    assert not (tmp_path / "ran").exists()
    with pytest.raises(ConfigError, match="is a NoneType; expected a callable"):
        check(config, source)
    assert (tmp_path / "ran").exists()

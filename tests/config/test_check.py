from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

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
from distspectral.storage.source.dataset import Source
from tests.runs import write_metric_run

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
        ("train.inputs=[code]", ConfigError, "asks for code, which needs representation = code; it is auto"),
        ("train.inputs=[vector,vector]", ConfigError, "names one twice"),
    ],
)
def test_values_that_contradict_the_data_or_each_other_are_refused(
    data: Path, override: str, kind: type[DistSpectralError], message: str
) -> None:
    with pytest.raises(kind, match=message) as caught:
        checked(data, override)
    assert type(caught.value) is kind


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

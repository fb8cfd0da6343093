"""Errors carry the parameters that their message names, and these exist, so that a caller can use its own words."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import fs

from distspectral.config.run import RunConfig
from distspectral.errors import DistSpectralError
from distspectral.stages.pack import PackConfig
from distspectral.storage.artifact.cache import NodeCache
from distspectral.storage.source.dataset import Source, SourceConfig
from distspectral.storage.source.limits import MAX_DIM
from tests.datasets import as_lists, packed, read_all

ROWS = np.ones((3, 2), np.float32)
KEY = re.compile(r"\b(?:data|pack|storage)\.[a-z_]+")


def write(folder: Path, vector: Any = None, name: str = "a.parquet") -> Path:
    pq.write_table(pa.table({"vector": as_lists(ROWS) if vector is None else vector}), folder / name)
    return folder


def read(folder: Path | str, **config: Any) -> None:
    read_all(Source.open(SourceConfig(path=str(folder), **config)))


def saved(folder: Path, array: np.ndarray) -> Path:
    np.save(folder / "a.npy", array)
    return folder


def delta(folder: Path) -> Path:
    (folder / "_delta_log").mkdir()
    return folder


def linked(folder: Path, name: str, target: str) -> Path:
    (folder / "in").mkdir()
    os.symlink(target, folder / "in" / name)
    return folder / "in"


def cannot_cache(folder: Path) -> None:
    (folder / "file").touch()
    remote = fs.SubTreeFileSystem(str(folder), fs.LocalFileSystem())
    NodeCache(str(folder / "file" / "cache"), 10).path(remote, "file", "file")


def pack_far(folder: Path) -> None:
    rows = np.vstack([ROWS * np.arange(2), ROWS, np.full((1, 2), 1e9, np.float32)])
    packed(folder, rows, config=PackConfig(dtype="float16"))


CASES: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "no such folder": (lambda folder: read(folder / "none"), ("data.path",)),
    "no shard in it": (lambda folder: read(saved(folder, ROWS) / "*.pq"), ("data.path", "data.format")),
    "a table": (lambda folder: read(delta(write(folder))), ("data.path",)),
    "named twice": (
        lambda folder: Source.open(SourceConfig(path=[str(write(folder)), str(folder / "a.parquet")])),
        ("data.path",),
    ),
    "loop": (lambda folder: read(linked(folder, "loop", ".")), ("data.path",)),
    "link": (
        lambda folder: read(linked(write(folder), "b.parquet", str(folder / "a.parquet"))),
        ("data.path", "data.follow_links"),
    ),
    "no column": (lambda folder: read(write(folder), column="image"), ("data.column",)),
    "no ids": (lambda folder: read(write(folder), id_column="key"), ("data.id_column",)),
    "no labels in a raw file": (lambda folder: read(saved(folder, ROWS), label_column="kind"), ("data.label_column",)),
    "wrong type": (lambda folder: read(write(folder, [1, 2, 3])), ("data.column",)),
    "all null": (
        lambda folder: read(write(folder, pa.array([None], pa.list_(pa.float32()))), on_bad_rows="quarantine"),
        ("data.column",),
    ),
    "too wide": (
        lambda folder: read(saved(folder, np.zeros((1, MAX_DIM + 1), np.uint8))),
        ("data.column", "data.format"),
    ),
    "corrupt": (lambda folder: read(saved(folder, ROWS), format="parquet"), ("data.format",)),
    "id twice": (lambda folder: packed(folder, ROWS * np.arange(2), ids=np.zeros(3, np.int64)), ("data.id_column",)),
    "beyond float16": (pack_far, ("pack.dtype", "data.on_bad_rows")),
    "no cache": (cannot_cache, ("storage.cache_dir", "storage.cache_bytes")),
}


@pytest.mark.parametrize("case", CASES)
def test_parameters_are_those_of_the_message_and_exist(tmp_path: Path, case: str) -> None:
    cause, expected = CASES[case]
    with pytest.raises(DistSpectralError) as caught:
        cause(tmp_path)
    assert caught.value.parameters == expected
    for owner, field in (parameter.split(".") for parameter in expected):
        assert field in RunConfig.model_fields[owner].annotation.model_fields
    retold = str(caught.value.in_words({parameter: "THIS" for parameter in expected}))
    assert retold.count("THIS") >= len(expected)
    assert not KEY.search(retold)

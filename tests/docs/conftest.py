"""One folder with the files that the pages speak of, and three finished runs in it, for all tests of this folder."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner, Result

from distspectral.cli.app import app
from distspectral.datasets import write_digits, write_vectors
from tests.datasets import blobs
from tests.docs.pages import PAGES, ROOT, blocks
from tests.runs import DIM, N_ROWS

BRIEF: dict[str, dict[str, Any]] = {
    **{name: {"max_steps": 20, "hidden": [16], "device": "cpu"} for name in ("autoencoder", "siamese")},
    "train": {"max_steps": 20, "window_steps": 10, "batch_size": 128, "device": "cpu"},
    "network": {"hidden": [16]},
    "dscl": {"n_components": 6, "rows_per_class": 5},
}
"""Sections that make any run one of a second."""


def save_briefly(config: str, path: Path) -> None:
    """Write a config with :data:`BRIEF` sections."""
    values = yaml.safe_load(config)
    for name, section in BRIEF.items():
        values[name] = values.get(name, {}) | section
    path.write_text(yaml.safe_dump(values))


def run_here(words: list[str]) -> Result:
    """Run the words of a command after ``distspectral`` in this process, without Ray."""
    local = ["--local"] if {"run", "stage", "embed"} & set(words[:3]) and "--local" not in words else []
    return CliRunner().invoke(app, [*words, *local], env={"COLUMNS": "200"})


def config_block(page: Path, config: str) -> str:
    """Return the YAML block of a page whose run is called so."""
    return next(block.text for block in blocks(page) if block.text.startswith(f"name: {config}\n"))


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder; ``run.yaml`` is the README's, ``metric.yaml`` the tutorial's, the digits' config is the real one."""
    folder = tmp_path_factory.mktemp("docs")
    vectors, labels = blobs(N_ROWS, DIM)
    write_vectors(str(folder / "data"), vectors, labels=labels, sizes=(50, 30, 40))
    write_vectors(str(folder / "new"), vectors[:60], labels=labels[:60], sizes=(40, 20))
    pq.write_table(pa.table({"id": np.arange(N_ROWS), "label": labels}), folder / "labels.parquet")
    rng = np.random.default_rng(0)
    classes = np.repeat(np.arange(20), 15)
    write_vectors(str(folder / "characters"), (rng.standard_normal((20, DIM))[classes]).astype("f4"), labels=classes)
    (folder / "jobs/configs").mkdir(parents=True)
    write_digits(str(folder / "runs/demo/data"), 4)
    save_briefly((ROOT / "jobs/configs/digits.yaml").read_text(), folder / "jobs/configs/digits.yaml")
    save_briefly(config_block(PAGES[0], "mine"), folder / "run.yaml")
    save_briefly(config_block(ROOT / "docs/tutorials/metric.md", "metric"), folder / "metric.yaml")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for config in ("run.yaml", "metric.yaml", "jobs/configs/digits.yaml"):
            result = run_here(["run", config])
            assert result.exit_code == 0, result.output
        for stage in ("pack", "autoencoder", "codes"):
            coded = ("representation=code", "root=runs/coded")
            result = run_here(
                ["stage", stage, "jobs/configs/digits.yaml", *(word for one in coded for word in ("--set", one))]
            )
            assert result.exit_code == 0, result.output
    return folder


@pytest.fixture
def workshop(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_log: None) -> Path:
    """A copy of the folder, as the working directory; a page may write a log, which the next test does not."""
    del own_log
    shutil.copytree(finished, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"

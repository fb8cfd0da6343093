"""A disk that is full at any moment of any stage: said with its place, no half file, and the run goes on."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest

from distspectral.config import load_config
from distspectral.errors import OutputNotWritableError
from distspectral.orchestration.engine import LocalEngine
from distspectral.orchestration.observer import SilentObserver
from distspectral.orchestration.pipeline import Pipeline, run
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.artifact.receipts import RECEIPTS
from distspectral.storage.source.dataset import Source
from tests.runs import CHAIN, N_ROWS, write_run

PAGE = os.sysconf("SC_PAGE_SIZE")


def fill(disk: Path, n_pages: int) -> None:
    """Leave so many pages free on the disk."""
    filler = disk / "filler"
    filler.unlink(missing_ok=True)
    free = shutil.disk_usage(disk).free - n_pages * PAGE
    if free > 0:
        filler.write_bytes(bytes(free))


def make_space(disk: Path) -> None:
    (disk / "filler").unlink(missing_ok=True)


def whole(root: Path) -> bool:
    """Whether every file under the root is one that was renamed into place, and receipts tell the sizes of theirs."""
    left_over = list(root.rglob("*.tmp"))
    for path in root.rglob(f"{RECEIPTS}/*.json"):
        receipt = Artifact(str(path.parent)).read_json(path.name)
        assert (path.parents[1] / receipt["name"]).stat().st_size == receipt["n_bytes"]
    return not left_over


@pytest.mark.slow
def test_every_stage_says_that_the_disk_is_full_and_goes_on_when_it_is_not(disk: Path, tmp_path: Path) -> None:
    path = write_run(tmp_path, root=str(disk / "root"), train={"batch_size": 64, "max_steps": 20, "device": "cpu"})
    config = load_config(path)
    refused = dict.fromkeys((*CHAIN, "report"), 0)
    for command in refused:
        n_pages = 0
        while True:
            fill(disk, n_pages)
            pipeline = Pipeline(config, Source.open(config.data), LocalEngine(), SilentObserver())
            try:
                pipeline.report() if command == "report" else pipeline.stage(command)
                break
            except OutputNotWritableError as error:
                refused[command] += 1
                message = str(error)
            assert re.search(rf"{disk}/root.*: no space left; free some or choose another (place|root)", message)
            assert whole(disk / "root"), command
            n_pages = max(n_pages + 1, n_pages * 2)
    make_space(disk)
    assert all(refused.values()), f"every stage met the full disk: {refused}"
    metrics = run(config, LocalEngine(), SilentObserver())
    assert metrics["n_rows"] == N_ROWS
    undisturbed = load_config(path, [f"root={tmp_path}/undisturbed"])
    run(undisturbed, LocalEngine(), SilentObserver())
    for shard in Artifact(f"{undisturbed.root}/output").manifest().shards:
        assert (disk / "root/output" / shard.name).read_bytes() == Path(
            undisturbed.root, "output", shard.name
        ).read_bytes()

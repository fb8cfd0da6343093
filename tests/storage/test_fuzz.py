"""Damaged shards are answered with rows or with an error of ours: no crash, no hang, no memory without bound.

``FUZZ_FILES=10000 pytest tests/storage/test_fuzz.py`` (``make fuzz``) reads ten thousand, from ``FUZZ_SEED`` on.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.storage import fuzz

N_FILES = int(os.environ.get("FUZZ_FILES", 300))
FIRST_SEED = int(os.environ.get("FUZZ_SEED", 0))


def read_in_child(
    folder: Path, first: int, count: int, program: Sequence[str] = ("-m", "tests.storage.fuzz")
) -> dict[str, Any]:
    """Return what the child says of the seeds; fail with the seed at which it ended otherwise."""
    command = [sys.executable, *program, str(first), str(count), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60 + count)
    if done.returncode != 0:
        at = json.loads((folder / "progress.json").read_text())
        pytest.fail(f"seed {at['seed']} ({at['name']}): the reader ended with {done.returncode}\n{done.stderr[-3000:]}")
    result: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return result


@pytest.mark.timeout(60 + N_FILES)
def test_damaged_files_are_read_or_refused(tmp_path: Path) -> None:
    result = read_in_child(tmp_path, FIRST_SEED, N_FILES)
    outcomes = result["outcomes"]
    print(f"{N_FILES} damaged files: {result}")
    assert sum(outcomes.values()) == N_FILES
    assert outcomes["CorruptShardError"] > N_FILES / 5, "the damage is real"
    assert outcomes["read"] > N_FILES / 50, "and often so small that rows come out"
    assert result["slowest_s"] < fuzz.PATIENCE_S
    assert result["grown_bytes"] < fuzz.GROWTH_BYTES


@pytest.mark.parametrize(
    ("stands_for", "code"),
    [("a crash", "os.kill(os.getpid(), signal.SIGSEGV)"), ("an error that is not ours", "raise RuntimeError")],
)
def test_the_seed_of_a_failure_is_named(tmp_path: Path, stands_for: str, code: str) -> None:
    driver = (
        "import os, signal, sys; from pathlib import Path; from tests.storage import fuzz\n"
        "def read(path, rng):\n    if path.suffix == '.npy':\n        " + code + "\n    return 'read'\n"
        "fuzz.read = read; fuzz.main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))"
    )
    with pytest.raises(pytest.fail.Exception, match=r"seed 1\d+ \(.*\.npy\): the reader ended with -?1"):
        read_in_child(tmp_path, 100, 60, ["-c", driver])


@pytest.mark.parametrize("name", sorted(fuzz.whole_files()))
def test_the_undamaged_file_is_read(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(fuzz.whole_files()[name])
    assert fuzz.read(path, random.Random(0)) == "read"

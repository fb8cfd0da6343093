from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from distspectral.orchestration.memory import resident_bytes

CHUNK = 150 << 20


def test_the_peak_is_kept_after_memory_is_given_back() -> None:
    """In a process of its own: a long-lived one may serve the block from memory it holds already."""
    program = f"""
from distspectral.orchestration.memory import PeakMemory, resident_bytes

before = resident_bytes()
with PeakMemory(interval_s=60) as memory:
    block = bytearray({CHUNK})
    memory.sample()
    del block
assert resident_bytes() < before + {CHUNK} * 0.5
print(memory.peak_bytes - before, memory.own_bytes)
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    peak, own = map(int, ran.stdout.split())
    assert peak >= CHUNK * 0.9
    assert own >= CHUNK * 0.9


def test_children_and_their_children_are_counted() -> None:
    hold = f"block = bytearray({CHUNK}); print('ready', flush=True); input()"
    spawn = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {hold!r}])"
    with subprocess.Popen(
        [sys.executable, "-c", spawn], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert resident_bytes() >= CHUNK * 0.9 + resident_bytes_alone()
        process.communicate("\n")


def test_neither_children_nor_mapped_files_are_the_process_own(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(CHUNK))
    program = f"""
import mmap
from distspectral.orchestration.memory import own_bytes, resident_bytes

before = own_bytes(), resident_bytes()
with open({str(tmp_path / "file")!r}, "rb") as file:
    mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    total = sum(mapped[::4096])
    print(own_bytes() - before[0], resident_bytes() - before[1])
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    own, resident = map(int, ran.stdout.split())
    assert own < CHUNK * 0.1
    assert resident > CHUNK * 0.9


def resident_bytes_alone() -> int:
    import psutil

    return int(psutil.Process().memory_info().rss)

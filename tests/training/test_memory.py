from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import resource, torch
from distspectral.training.memory import memory_kept

def pages_cleared():
    for n_tensors in (4, 2):  # the first ones may still grow the heap
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(n_tensors):
            torch.ones(1 << 25)  # 128 MiB, more than the C library ever keeps by itself
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(pages_cleared())
with memory_kept():
    print(pages_cleared())
"""


def test_freed_memory_is_taken_again_while_it_is_kept():
    made = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=120)
    outside, inside = map(int, made.stdout.split())
    assert inside < 1000 < outside

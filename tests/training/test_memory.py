from __future__ import annotations

import os
import subprocess
import sys

PROGRAM = """
import resource, torch
from distspectral.training.memory import memory_kept

def pages_cleared():
    for _ in range(4):  # the first times may still grow the heap
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        tensors = [torch.ones(1 << 20) for _ in range(50)]  # 4 MiB each
        del tensors
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(pages_cleared())
with memory_kept():
    print(pages_cleared())
"""


def test_freed_memory_is_taken_again_while_it_is_kept():
    returned = {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"}  # whatever came before
    run = [sys.executable, "-c", PROGRAM]
    made = subprocess.run(run, capture_output=True, text=True, check=True, timeout=120, env=os.environ | returned)
    outside, inside = map(int, made.stdout.split())
    assert inside < 1000 < outside

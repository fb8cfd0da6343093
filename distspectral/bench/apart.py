"""A measurement in a process of its own, so that its memory, threads and imports are nobody else's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from distspectral.errors import DistSpectralError


def measure_apart(what: str, module: str, *arguments: str, threads: int) -> dict[str, Any]:
    """Run a module of this package and return the JSON object in the last line that it prints.

    Args:
        what: is measured, for the message.
        module: to run, as ``python -m`` names it.
        arguments: of its command line.
        threads: that it may use.

    Raises:
        DistSpectralError: the process failed.
    """
    limits = {"OMP_NUM_THREADS": str(threads), "NUMBA_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}
    command = [sys.executable, "-m", module, *arguments]
    ended = subprocess.run(command, env=os.environ | limits, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise DistSpectralError(f"{what} ended with {ended.returncode}: {ended.stderr.strip()[-2000:]}")
    result: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return result

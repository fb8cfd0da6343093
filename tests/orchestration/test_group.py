"""What a group of training workers makes Ray start."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import pickle, sys
from distspectral.orchestration.group import OneMachineConfig, OurTrainController

config = pickle.loads(pickle.dumps(OneMachineConfig("gloo", 60)))
config.backend_cls
sys.exit("torch" in sys.modules)
"""


def test_the_controller_does_without_torch() -> None:
    assert subprocess.run([sys.executable, "-c", SCRIPT], check=False).returncode == 0

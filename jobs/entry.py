"""What every job script does: one command of ``distspectral`` on the config that ``--config`` names."""

from __future__ import annotations

import argparse
import sys

from distspectral.cli import main


def run(command: str, purpose: str) -> None:
    """Run a command; options that are not ours pass through."""
    parser = argparse.ArgumentParser(description=purpose, epilog=f"Other options: distspectral {command} --help")
    parser.add_argument("--config", required=True, help="YAML file of the run")
    arguments, others = parser.parse_known_args()
    sys.argv = ["distspectral", command, arguments.config, *others]
    main()

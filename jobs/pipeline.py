"""The whole pipeline as a job: ``ray job submit --working-dir . -- python jobs/pipeline.py --config CONFIG``.

The same as ``distspectral run CONFIG``; other options pass through.
"""

from __future__ import annotations

import argparse
import sys

from distspectral.cli import main

if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description="Run the whole pipeline.", epilog="Other options: distspectral run --help"
    )
    parser.add_argument("--config", required=True, help="YAML file of the run")
    arguments, others = parser.parse_known_args()
    sys.argv = ["distspectral", "run", arguments.config, *others]
    main()

"""The whole run as a job: ``ray job submit --working-dir . -- python jobs/pipeline.py --config CONFIG``.

Other options are those of ``distspectral run``.
"""

from __future__ import annotations

import argparse
import sys

from distspectral.cli import main

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Run the whole pipeline.", epilog="Others: distspectral run --help")
    parser.add_argument("--config", required=True, help="YAML file of the run")
    arguments, others = parser.parse_known_args()
    sys.argv = ["distspectral", "run", arguments.config, *others]
    main()

"""One stage as a job: ``ray job submit --working-dir . -- python jobs/stage.py NAME --config CONFIG``.

Other options are those of ``distspectral stage``.
"""

from __future__ import annotations

import argparse
import sys

from distspectral.cli import main

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Run one stage.", epilog="Stages: distspectral stage --help")
    parser.add_argument("name", help="of the stage")
    parser.add_argument("--config", required=True, help="YAML file of the run")
    arguments, others = parser.parse_known_args()
    sys.argv = ["distspectral", "stage", arguments.name, arguments.config, *others]
    main()

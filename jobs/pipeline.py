"""The whole pipeline as a job: ``ray job submit --working-dir . -- python jobs/pipeline.py --config CONFIG``."""

from __future__ import annotations

from entry import run

if __name__ == "__main__":
    run("run", "Run the whole pipeline.")

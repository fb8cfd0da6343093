"""The stage `train` as a job: ``ray job submit --working-dir . -- python jobs/train.py --config CONFIG``."""

from __future__ import annotations

from entry import run

if __name__ == "__main__":
    run("train", "Train the network.")

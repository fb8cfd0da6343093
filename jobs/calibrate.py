"""The stage `calibrate` as a job: ``ray job submit --working-dir . -- python jobs/calibrate.py --config CONFIG``."""

from __future__ import annotations

from entry import run

if __name__ == "__main__":
    run("calibrate", "Make the network's outputs eigenfunctions.")

"""The stage `siamese` as a job: ``ray job submit --working-dir . -- python jobs/siamese.py --config CONFIG``."""

from __future__ import annotations

from entry import run

if __name__ == "__main__":
    run("siamese", "Train the Siamese network and weigh the edges by its distances.")

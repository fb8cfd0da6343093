"""The stage `represent` as a job: ``ray job submit --working-dir . -- python jobs/represent.py --config CONFIG``."""

from __future__ import annotations

from entry import run

if __name__ == "__main__":
    run("represent", "Train the autoencoder and encode every row.")

"""The stage `cluster` as a job: ``ray job submit --working-dir . -- python jobs/cluster.py --config CONFIG``."""

from __future__ import annotations

from entry import run

if __name__ == "__main__":
    run("cluster", "Find the clusters' centroids.")

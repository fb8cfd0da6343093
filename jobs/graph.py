"""The stage `graph` as a job: ``ray job submit --working-dir . -- python jobs/graph.py --config CONFIG``."""

from __future__ import annotations

from entry import run

if __name__ == "__main__":
    run("graph", "Find every row's neighbours and weigh the edges.")

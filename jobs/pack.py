"""The stage `pack` as a job: ``ray job submit --working-dir . -- python jobs/pack.py --config CONFIG``."""

from __future__ import annotations

from entry import run

if __name__ == "__main__":
    run("pack", "Check the source shards and pack them.")

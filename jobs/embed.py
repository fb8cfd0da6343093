"""The stage `embed` as a job: ``ray job submit --working-dir . -- python jobs/embed.py --config CONFIG``."""

from __future__ import annotations

from entry import run

if __name__ == "__main__":
    run("embed", "Embed and cluster every row.")

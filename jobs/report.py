"""The report as a job: ``ray job submit --working-dir . -- python jobs/report.py --config CONFIG``."""

from __future__ import annotations

from entry import run

if __name__ == "__main__":
    run("report", "Write metrics.json and report.html anew.")

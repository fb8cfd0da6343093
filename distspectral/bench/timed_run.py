"""One whole run in this process, timed: what ``distspectral.bench.plan`` starts once per size."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch

from distspectral.config.load import load_config
from distspectral.orchestration.pipeline import Pipeline
from distspectral.planning.stopwatch import Stopwatch
from distspectral.storage.source.dataset import Source


def main(path: str) -> dict[str, Any]:
    """Run a config in one thread; return seconds and core-seconds of each stage that worked, kept bytes and memory."""
    torch.set_num_threads(1)
    config, watch = load_config(path), Stopwatch()
    pipeline = Pipeline(config, Source.open(config.data), watch, watch)
    metrics = pipeline.run()
    manifests = {stage: output.artifact.manifest() for stage, output in pipeline.chain.outputs.items()}
    return {
        "seconds": watch.wall,
        "core_seconds": {stage: watch.core_seconds(stage) for stage in watch.wall},
        "steps": {stage: one.metrics["steps"] for stage, one in manifests.items() if "steps" in one.metrics},
        "kept_bytes": sum(shard.n_bytes for one in manifests.values() for shard in one.shards),
        "peak_rss_bytes": metrics["peak_rss_bytes"],
    }


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(main(sys.argv[1])))

"""Runs on a tiny dataset in one process: opened, or taken up to a stage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from distspectral.config import load_config
from distspectral.orchestration.engine import LocalEngine
from distspectral.orchestration.observer import SilentObserver
from distspectral.orchestration.pipeline import Pipeline
from distspectral.storage.source.dataset import Source
from tests.runs import write_run


def opened(path: Path, *overrides: str) -> Pipeline:
    """Return the pipeline of a run in this process, from its config."""
    config = load_config(path, overrides)
    return Pipeline(config, Source.open(config.data), LocalEngine(), SilentObserver())


def pipeline_upto(folder: Path, last: str, **sections: Any) -> Pipeline:
    """Return the pipeline of a tiny run after the stage ``last`` and those before it."""
    pipeline = opened(write_run(folder, **sections))
    for name in pipeline.chain.outputs:
        pipeline.stage(name)
        if name == last:
            break
    return pipeline

"""The stages up to a trained network on a tiny dataset, in one process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from distspectral.config import load_config
from distspectral.orchestration.engine import LocalEngine
from distspectral.orchestration.observer import SilentObserver
from distspectral.orchestration.pipeline import Pipeline
from distspectral.report.metrics import stages_of
from distspectral.storage.source.dataset import Source
from tests.runs import write_run


def pipeline_upto(folder: Path, command: str, **sections: Any) -> Pipeline:
    """Return the pipeline of a tiny run after ``command`` and those before it."""
    config = load_config(write_run(folder, **sections))
    pipeline = Pipeline(config, Source.open(config.data), LocalEngine(), SilentObserver())
    for name in stages_of(pipeline.plan.chain):
        pipeline.command(name)
        if name == command:
            break
    return pipeline

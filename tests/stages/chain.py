"""The stages up to a trained network on a tiny dataset, in one process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from distspectral.config import load_config
from distspectral.orchestration.engine import LocalEngine
from distspectral.orchestration.observer import SilentObserver
from distspectral.orchestration.pipeline import Pipeline
from distspectral.storage.source.dataset import Source
from tests.runs import write_run


def pipeline_upto(folder: Path, last: str, **sections: Any) -> Pipeline:
    """Return the pipeline of a tiny run after the stage ``last`` and those before it."""
    config = load_config(write_run(folder, **sections))
    pipeline = Pipeline(config, Source.open(config.data), LocalEngine(), SilentObserver())
    for name in pipeline.chain.outputs:
        pipeline.stage(name)
        if name == last:
            break
    return pipeline

"""The report of a run: one self-contained HTML page made from plain values."""

from __future__ import annotations

from distspectral.report.data import (
    CapacityFacts,
    ClusterFacts,
    GraphFacts,
    Histogram,
    ReportData,
    ScatterSample,
    Scores,
    SpectrumFacts,
    TrainingFacts,
    TrainingWindow,
)
from distspectral.report.page import render

__all__ = [
    "CapacityFacts",
    "ClusterFacts",
    "GraphFacts",
    "Histogram",
    "ReportData",
    "ScatterSample",
    "Scores",
    "SpectrumFacts",
    "TrainingFacts",
    "TrainingWindow",
    "render",
]

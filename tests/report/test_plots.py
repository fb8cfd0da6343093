from __future__ import annotations

import math
from typing import Any
from xml.etree import ElementTree

import matplotlib
import pytest

from distspectral.report import plots
from distspectral.report.data import Histogram, ReportData, SpectrumFacts, TrainingWindow


def texts(svg: str) -> list[str]:
    root = ElementTree.fromstring(svg)
    return ["".join(node.itertext()).strip() for node in root.iter("{http://www.w3.org/2000/svg}text")]


def window(step: int, loss: float, ritz_values: list[float]) -> TrainingWindow:
    return TrainingWindow(
        step=step, loss=loss, ritz_values=ritz_values, ritz_sum=1.0, learning_rate=1e-3, edges_per_second=1.0
    )


def test_text_stays_text_and_colours_follow_the_page(full: ReportData) -> None:
    svg = plots.stage_seconds(full.seconds)
    assert {"pack", "4.2 s", "1 min 11 s"} <= set(texts(svg))
    assert "var(--ink)" in svg


def test_plots_leave_global_settings_alone(full: ReportData) -> None:
    before = dict(matplotlib.rcParams)
    plots.spectrum(full.spectrum)
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize(
    ("longest", "unit"), [(0.0, "seconds"), (90.0, "seconds"), (300.0, "minutes"), (9000.0, "hours")]
)
def test_time_axis_takes_the_fitting_unit(longest: float, unit: str) -> None:
    assert f"wall-clock time ({unit})" in texts(plots.stage_seconds({"train": longest}))


def test_spectrum_shows_what_was_dropped_and_suggests_nothing() -> None:
    facts = SpectrumFacts(ritz_values=[0.0, 0.01, 0.5], n_kept=2, gaps=[0.1, 0.9])
    assert "dropped" in texts(plots.spectrum(facts))
    assert not any("suggests" in text for text in texts(plots.spectrum(facts)))
    kept = SpectrumFacts(ritz_values=[0.0, 0.01, 0.5], n_kept=3)
    assert "dropped" not in texts(plots.spectrum(kept))


def test_loss_is_logarithmic_only_if_positive_over_a_decade() -> None:
    assert "loss, log scale" in texts(plots.loss_curve([window(1, 1.0, []), window(2, 0.01, [])]))
    assert "loss" in texts(plots.loss_curve([window(1, 1.0, []), window(2, 0.5, [])]))
    assert "loss" in texts(plots.loss_curve([window(1, 1.0, []), window(2, -40.0, [])]))


@pytest.mark.parametrize("history", [[(1, math.nan)], [(1, math.nan), (2, 1.0)], [(1, 0.0)], [(5, 1.0)]])
def test_curves_bear_short_and_non_finite_histories(history: list[tuple[int, float]]) -> None:
    windows = [window(step, value, [0.0, value]) for step, value in history]
    assert texts(plots.loss_curve(windows))
    assert texts(plots.ritz_curves(windows, n_kept=1))


def test_ritz_curves_bear_values_at_and_below_zero() -> None:
    windows = [window(1, 1.0, [-1e-9, 0.0, 0.5]), window(2, 1.0, [-1e-9, 1e-8, 0.01])]
    labels = texts(plots.ritz_curves(windows, n_kept=2))
    assert {"Ritz value, log scale", "kept", "dropped"} <= set(labels)


def test_degree_histogram_turns_logarithmic_with_its_data() -> None:
    even = texts(plots.degree_histogram(Histogram(counts=[5, 6], edges=[0.0, 1.0, 2.0])))
    skewed = texts(plots.degree_histogram(Histogram(counts=[1, 9000], edges=[0.1, 1.0, 1000.0])))
    assert "rows" in even
    assert "rows, log scale" in skewed


@pytest.mark.parametrize(("part", "field"), [("clusters", "sizes"), ("rows", "labels"), ("spectrum", "gaps")])
def test_lists_of_unequal_length_are_refused(values: Any, part: str, field: str) -> None:
    data = values()
    data[part][field] = data[part][field] * 3
    with pytest.raises(ValueError, match=part):
        ReportData.model_validate(data)


def test_errors_of_functions_reach_the_highest_and_show_the_limit(full: ReportData) -> None:
    assert full.certificate is not None
    drawn = texts(plots.function_errors(full.certificate))
    assert {"against the exact functions", "and those of near eigenvalues", "0.6"} <= set(drawn)
    exact = full.certificate.model_copy(update={"sin2": [0.0] * 4, "near_sin2": [0.0] * 4})
    assert "0.2" in texts(plots.function_errors(exact)), "the limit is in sight"

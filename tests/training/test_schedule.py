from __future__ import annotations

import pytest

from distspectral.training.schedule import PlateauSchedule


def schedule(max_steps=1000, patience=3, tolerance=0.02):
    return PlateauSchedule(max_steps, warmup_steps=100, cooldown=0.4, patience=patience, tolerance=tolerance)


def test_rate_warms_up_holds_and_falls_to_zero():
    one = schedule()
    assert one.factor(0) == pytest.approx(0.01)
    assert one.factor(99) == one.factor(500) == one.factor(600) == 1.0
    assert one.factor(800) == pytest.approx(0.5)
    assert one.factor(999) < 1e-4
    assert one.last_step == 1000


def test_a_plateau_begins_a_cool_down_of_the_same_share_of_the_run():
    one = schedule()
    for window in range(1, 5):
        one.observe(50 * window, 1.0)
    assert one.plateaued
    assert one.factor(200) == 1.0
    assert one.last_step == 200 + round(200 * 0.4 / 0.6)


def test_slow_progress_adds_up_and_is_no_plateau():
    one = schedule()
    for window in range(1, 11):
        one.observe(50 * window, 0.99**window)  # one percent a window, two every other
    assert not one.plateaued


def test_progress_below_the_tolerance_is_a_plateau():
    one = schedule()
    for window in range(1, 11):
        one.observe(50 * window, 0.999**window)
    assert one.plateaued


def test_a_late_plateau_never_exceeds_the_budget():
    one = schedule(patience=1)
    one.observe(550, 1.0)
    one.observe(590, 1.0)
    assert one.plateaued
    assert one.last_step <= 1000


def test_no_patience_never_stops_early():
    one = schedule(patience=0)
    for window in range(1, 12):
        one.observe(50 * window, 1.0)
    assert (one.plateaued, one.last_step) == (False, 1000)


def test_restored_schedule_goes_on_alike():
    one, other = schedule(), schedule()
    for window in range(1, 3):
        one.observe(50 * window, 1.0)
    other.load_state_dict(one.state_dict())
    for each in (one, other):
        each.observe(150, 1.0)
        each.observe(200, 1.0)
    assert one.state_dict() == other.state_dict()
    assert other.plateaued

from __future__ import annotations

import time

import pytest
import torch

from distspectral.training.threads import useful_threads


@pytest.fixture(autouse=True)
def eight_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(8)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("seconds", "taken"),
    [
        ({1: 8, 2: 4, 4: 2, 8: 1}, 8),
        ({1: 8, 2: 4, 4: 3.8, 8: 1}, 2),  # a doubling that gains nothing ends it
        ({1: 8, 2: 7, 4: 2, 8: 1}, 1),
    ],
)
def test_threads_are_doubled_as_long_as_that_shortens_a_pass(monkeypatch, seconds, taken):
    clock = [0.0]

    def run():
        clock[0] += seconds[torch.get_num_threads()]

    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    with useful_threads(run) as n_threads:
        assert n_threads == torch.get_num_threads() == taken
    assert torch.get_num_threads() == 8


def test_an_error_leaves_the_threads_as_they_were():
    def run():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), useful_threads(run):
        pass
    assert torch.get_num_threads() == 8


def test_one_thread_is_not_timed():
    torch.set_num_threads(1)
    with useful_threads(pytest.fail) as n_threads:
        assert n_threads == 1

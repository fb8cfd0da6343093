"""The check of a card, on a CPU: that every part runs, and that a wrong line makes it fail."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from distspectral.bench import gpu
from distspectral.bench.gpu import Card, Line
from distspectral.datasets import Mixture
from distspectral.graph.search.faiss_search import GpuSearch
from tests.graph.search.fake_faiss import FakeFaiss


def test_search_group_and_embedding_run_and_are_right() -> None:
    card = Card("cpu")
    lines = [*gpu.searches(card, 400), *gpu.group(card), *gpu.embeddings(card, 2 * gpu.BATCH_ROWS)]
    judged = [line for line in lines if line.passed is not None]
    assert len(judged) == 6 + 1 + 3
    assert all(line.passed for line in judged), judged


def test_halves_are_judged_where_the_search_is_a_gpus() -> None:
    rows = Mixture(24).rows(0, 500)[0]
    lines = list(gpu.searches_of(Card("cpu"), rows - rows.mean(axis=0), GpuSearch(FakeFaiss())))
    assert [line.what for line in lines if "halves" in line.what] == ["FAISS halves, 500 x 24"]
    assert [line.passed for line in lines if "recall" in line.what] == [True] * 3


def test_a_part_that_breaks_is_a_wrong_line_and_the_others_go_on() -> None:
    def broken() -> Iterator[Line]:
        yield Line("one", "1 s")
        raise RuntimeError("no kernel image")

    lines = list(gpu.check({"search": broken, "group": lambda: iter([Line("two", "2 s")])}))
    assert [(line.what, line.passed) for line in lines] == [("one", None), ("search", False), ("two", None)]
    assert "no kernel image" in lines[1].beside


def test_a_missing_card_is_said_before_anything_is_measured(monkeypatch, capsys) -> None:
    monkeypatch.setattr("sys.argv", ["gpu"])
    with pytest.raises(SystemExit):
        gpu.main()
    assert "--device cpu" in capsys.readouterr().err

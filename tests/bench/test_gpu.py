"""The check of a card, on a CPU: that every part runs, and that a wrong line makes it fail."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from distspectral.bench import gpu
from distspectral.bench.gpu import Card, Line


def test_search_group_and_embedding_run_and_are_right() -> None:
    card = Card("cpu")
    lines = [*gpu.searches(card, 400), *gpu.group(card), *gpu.embeddings(card, 2 * gpu.BATCH_ROWS)]
    judged = [line for line in lines if line.passed is not None]
    assert len(judged) == 3 + 1 + 3
    assert all(line.passed for line in judged), judged


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

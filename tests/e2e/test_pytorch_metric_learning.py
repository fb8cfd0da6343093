"""The tutorial's example: DSCLLoss inside pytorch-metric-learning's own trainer; run as it is printed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest.importorskip("pytorch_metric_learning")

PAGE = Path(__file__).parents[2] / "docs/tutorials/metric.md"


def example() -> str:
    """Return the page's block of Python that imports pytorch-metric-learning."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    found = [block for block in blocks if "pytorch_metric_learning" in block]
    assert len(found) == 1
    return str(found[0])


@pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad:UserWarning")  # its progress bar does
def test_the_tutorials_training_loop_runs_and_learns() -> None:
    code = example()
    assert len(code.splitlines()) <= 20
    namespace: dict[str, object] = {}
    exec(code, namespace)
    scores = namespace["scores"]
    assert isinstance(scores, dict)
    assert scores["precision_at_1"] > 0.9, "0.24 in the raw features"

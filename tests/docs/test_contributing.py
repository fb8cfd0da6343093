"""The worked examples of the contributing page are modules that import, run and are exact."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from distspectral.costs.bill import Bill
from distspectral.graph.store import MappedGraph
from distspectral.objectives.batches import LabeledBatch
from distspectral.spectral import affinity
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.artifact.output import Output
from distspectral.storage.rows.vectors import ArrayVectors
from distspectral.storage.source.formats import raw
from distspectral.training.config import TrainConfig
from tests.docs.pages import ROOT, blocks
from tests.planning.constructed import config, machines, rates

PAGE = ROOT / "docs/contributing.md"


def example(text: str, name: str, monkeypatch: pytest.MonkeyPatch, **known: Any) -> Any:
    """Return the block that holds a text, as the module ``name``."""
    (block,) = [block for block in blocks(PAGE) if text in block.text]
    module = types.ModuleType(name)
    vars(module).update(known)
    exec(compile(block.text, name, "exec"), vars(module))
    monkeypatch.setitem(sys.modules, name, module)
    return module


def test_the_stage_writes_the_row_sums_of_the_graph(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = example("def write_degrees", "distspectral.stages.degrees", monkeypatch)
    graph = Artifact(str(finished / "runs/mine/graph"))
    output = Output(Artifact(str(tmp_path / "degrees")), module.DEGREES.name, "0" * 16, {}, {})
    assert module.write_degrees(graph, output).properties == {"n_rows": 120}
    neighbors, affinities = MappedGraph(graph).block(0, 120)
    dense = np.zeros((120, 120))
    np.put_along_axis(dense, neighbors, affinities, 1)
    np.testing.assert_allclose(np.load(tmp_path / "degrees/degrees.npy"), (dense + dense.T).sum(1), rtol=1e-6)


def test_the_stage_declares_what_it_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    module = example("def write_degrees", "distspectral.stages.degrees", monkeypatch)
    run = config()
    sample = rates(sample_rows=40_000, alone_s={"degrees": 0.4})
    bill = Bill("degrees", 1e6, run.recipe(96), {"graph": run.graph}, sample, machines())
    module.DEGREES.cost(bill)
    assert [term.seconds for term in bill.terms] == pytest.approx([10])
    assert bill.read == 1e6 * sample.kept_bytes["graph"]


def test_the_format_is_fbin_with_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    module = example("def u8bin_layout", "u8bin", monkeypatch, **{**vars(raw), "__name__": "u8bin"})
    layout = raw.RawLayout(3, 4, np.dtype("<f4"), 8)
    module.fbin_layout = lambda file, stream: layout
    assert module.u8bin_layout(None, None) == raw.RawLayout(3, 4, np.dtype(np.uint8), 8)


def test_the_affinity_falls_with_the_distance(monkeypatch: pytest.MonkeyPatch) -> None:
    squared, scales = torch.tensor([[1.0, 4.0]]), torch.ones(1, 2)
    known = {"squared_distances": squared, "anchor_scales": torch.ones(1), "neighbor_scales": scales, "torch": torch}
    cauchy = example('kind == "cauchy"', "cauchy", monkeypatch, **known, kind="cauchy")
    torch.testing.assert_close(cauchy.weights, torch.tensor([[0.5, 0.2]]))
    known_kind = example('kind == "cauchy"', "gauss", monkeypatch, **known, kind="self_tuning")
    torch.testing.assert_close(
        known_kind.weights, affinity.affinities(squared, "self_tuning", known["anchor_scales"], scales)
    )


def test_the_objective_has_the_ratios_gradient_on_any_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    module = example("class FisherObjective", "distspectral.objectives.fisher", monkeypatch)
    objective = module.FisherObjective(torch.nn.Linear(1, 1))
    generator = torch.Generator().manual_seed(0)
    rows, classes = torch.randn(12, 4, generator=generator), torch.arange(12) % 3
    weights = torch.randn(4, 3, generator=generator, requires_grad=True)

    def gradient(ranks: list[slice]) -> torch.Tensor:
        local = [objective.local_sums(rows[r] @ weights, LabeledBatch(rows[r], classes[r], 3)) for r in ranks]
        total = {name: sum(one[name] for one in local) for name in local[0]}
        losses = [objective.propose(one, total).loss for one in local]
        return torch.autograd.grad(sum(losses), weights)[0]

    outputs = (rows @ weights).double()
    within = sum((outputs[classes == c] - outputs[classes == c].mean(0)).square().sum() for c in range(3))
    (expected,) = torch.autograd.grad(within / (outputs - outputs.mean(0)).square().sum(), weights)
    torch.testing.assert_close(gradient([slice(0, 12)]), expected)
    torch.testing.assert_close(gradient([slice(0, 5), slice(5, 12)]), expected)


def test_the_settings_train_it(monkeypatch: pytest.MonkeyPatch) -> None:
    example("class FisherObjective", "distspectral.objectives.fisher", monkeypatch)
    settings = example("class FisherSettings", "distspectral.training.fisher", monkeypatch).FisherSettings(
        train=TrainConfig(max_steps=40, batch_size=40, window_steps=20, warmup_steps=5, device="cpu")
    )
    rng = np.random.default_rng(0)
    classes = np.repeat(np.arange(8), 10)
    rows = (3 * rng.standard_normal((8, 5))[classes] + rng.standard_normal((80, 5))).astype(np.float32)
    trainer = settings.trainer(ArrayVectors(rows, classes))
    seen: list[dict[str, Any]] = []
    trainer.fit(types.SimpleNamespace(window=seen.append, checkpoint=lambda trainer: None))
    assert seen[-1]["loss"] < seen[0]["loss"] < 1


def test_the_chain_is_the_recipes_with_one_more() -> None:
    (chain,) = re.findall(r"^chain = (\(.*?\))$", PAGE.read_text(), re.M | re.S)
    recipe = (ROOT / "distspectral/recipes/spectral.py").read_text()
    bare, bare_recipe = (re.sub(r"\s", "", text).replace(",)", ")") for text in (chain, recipe))
    assert bare.replace('"degrees",', "") in bare_recipe

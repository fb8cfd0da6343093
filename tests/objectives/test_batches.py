from __future__ import annotations

import torch

from tests.oracles import all_edges, random_graph


def test_moved_batch_keeps_every_field():
    batch = all_edges(torch.randn(12, 3), random_graph(12, 4))
    moved = batch.to(torch.device("meta"))
    for name in ("vectors", "heads", "tails", "weights", "mass"):
        assert getattr(moved, name).device.type == "meta"
        assert getattr(moved, name).shape == getattr(batch, name).shape
        assert getattr(moved, name).dtype == getattr(batch, name).dtype

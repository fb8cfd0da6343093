from __future__ import annotations

import numpy as np
import pytest
import torch

from distspectral.graph.store import ArrayGraph
from distspectral.models.orthonorm_layer import OrthonormalLayer, OrthonormConfig
from distspectral.models.state import read_state
from distspectral.objectives.spectral import SpectralConfig, SpectralObjective
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.rows.vectors import ArrayVectors
from distspectral.training.growth import N_JUDGED, batch_growth
from distspectral.training.loop import WindowRecorder
from distspectral.training.siamese import SiameseConfig, SiameseSettings
from distspectral.training.spectral import SpectralSettings
from tests.oracles import random_graph
from tests.training.test_loop import Keeper


def trainer(wanted=None, **train):
    """Return a trainer whose cool-down begins at step 20 of 40, and whose objective wants larger batches."""
    vectors = ArrayVectors(np.random.default_rng(0).normal(size=(80, 4)).astype(np.float32))
    settings = SpectralSettings(
        n_components=3,
        network={"hidden": (16,)},
        train={"batch_size": 64, "max_steps": 40, "window_steps": 10, "checkpoint_steps": 10, "cooldown": 0.5} | train,
    )
    made = settings.trainer(vectors, random_graph(80, 4))
    if wanted is not None:
        made.objective.batch_growth = lambda totals: wanted
    return made


def sizes(one):
    """Train and return the edges of each step."""
    found, whole = [], one.objective.propose

    def propose(local, total):
        found.append(one.sampler.growth * one.sampler.n_edges)
        return whole(local, total)

    one.objective.propose = propose
    one.fit(WindowRecorder())
    return found


@pytest.mark.parametrize(("wanted", "growth"), [(0.3, 1), (1.0, 1), (1.1, 2), (2.1, 4), (float("inf"), 4)])
def test_batches_grow_when_the_rate_begins_to_fall(wanted, growth):
    one = trainer(wanted)
    assert sizes(one) == [64] * 20 + [64 * growth] * 20
    assert one.batch_size == 64 * growth
    assert one.n_drawn == 64 * 20 * (1 + growth)


def test_batches_stay_if_they_are_to():
    one = trainer(float("inf"), max_growth=1)
    assert sizes(one) == [64] * 40
    assert one.n_drawn == 64 * 40


def test_a_run_resumed_in_the_cool_down_goes_on_with_the_larger_batches(tmp_path):
    keeper = Keeper(Artifact(str(tmp_path)))
    whole = trainer(4)
    whole.fit(keeper)
    for step in (20, 30):
        resumed = trainer(4 if step == 20 else None)
        resumed.load_state_dict(read_state(keeper.artifact, f"{step}.pt"))
        resumed.fit(WindowRecorder())
        assert resumed.n_drawn == whole.n_drawn
        for name, tensor in whole.model.state_dict().items():
            assert torch.equal(tensor, resumed.model.state_dict()[name]), name


def test_energy_of_few_edges_wants_larger_batches_than_energy_of_many():
    objective = SpectralObjective(SpectralConfig(), OrthonormalLayer(4, OrthonormConfig()))
    generator = torch.Generator().manual_seed(0)

    def wanted(share, n_edges):
        """Return how many times larger batches should be, if only a share of the edges joins rows that differ."""
        size = N_JUDGED, n_edges, 4
        rows = torch.randn(size, generator=generator).double()
        steps = torch.randn(size, generator=generator).double() * (torch.rand(size, generator=generator) < share)
        gram, energy = (part.transpose(1, 2) @ part / n_edges for part in (rows, steps))
        return objective.batch_growth([{"energy": q, "gram": g} for q, g in zip(energy, gram, strict=True)])

    assert wanted(1.0, 512) < 0.1 * wanted(0.02, 512)
    assert wanted(0.02, 2048) == pytest.approx(wanted(0.02, 512) / 4, rel=0.5)


def test_functions_that_a_batch_cannot_tell_apart_want_the_largest():
    objective = SpectralObjective(SpectralConfig(), OrthonormalLayer(2, OrthonormConfig(jitter=0.0)))
    nothing = torch.zeros(2, 2, dtype=torch.float64)
    assert objective.batch_growth([{"energy": nothing, "gram": nothing}] * 3) == float("inf")


def test_an_objective_that_is_a_mean_over_its_items_never_wants_more():
    rows = ArrayVectors(np.random.default_rng(0).normal(size=(80, 4)).astype(np.float32))
    graph = ArrayGraph(np.arange(80)[:, None] ^ 1, np.ones((80, 1), np.float32))
    one = SiameseSettings(train=SiameseConfig(hidden=(8,), batch_size=16)).trainer(rows, graph)
    assert batch_growth(one.network, one.objective, one.sampler, 0, 4, "float32") == 1

"""The last layer, solved after the last step: Rayleigh-Ritz among all functions that the units before it span.

Descent moves the last layer batch by batch and never quite arrives, above all at the functions kept last. But the
units of the last hidden layer, held still, are functions of the rows as good as any, and their lowest Ritz functions
are known at once, from sums over some more edges.

Shape letters: N rows, B rows of a batch, H units of the last hidden layer, E functions, P kept.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from distspectral.comm import collectives
from distspectral.models.orthonorm_layer import SpectralModel
from distspectral.objectives.batches import EdgeBatch
from distspectral.objectives.spectral import SpectralObjective
from distspectral.precision import multiplied_in
from distspectral.spectral.rayleigh import rayleigh_ritz
from distspectral.training.growth import N_JUDGED, GrowingSampler

EDGES_PER_UNIT = 512
"""Edges summed for each unit of the last hidden layer, at most."""

FEW_ROWS, MANY_EDGES = 1 << 14, 1 << 14
"""Rows up to which a batch has so many edges: it then holds most rows once, where small batches hold them again. Of
more rows batches are those of the training, drawn before it or not."""

DEPENDENT = 1e-5
"""Share of a unit's mass below which a direction among the units is none. Coefficients of weaker ones are large, and
halves round them: on Reuters this costs the mean sin^2 of .0050 nothing and spares halves a third of their error."""

Sums = dict[str, Tensor]


@dataclasses.dataclass(frozen=True)
class LastLayer:
    """Solves the last layer of a trained network of functions.

    Args:
        model: trained, on its device.
        objective: whose sums they are.
        sampler: of this rank's edges.
        batch_size: edges of its batches, all ranks together.
        n_steps: of the training at most; batches from there on judge.
        n_rows: N.
        n_edges: of the graph.
    """

    model: SpectralModel
    objective: SpectralObjective
    sampler: GrowingSampler
    batch_size: int
    n_steps: int
    n_rows: int
    n_edges: int

    @torch.no_grad()
    def __call__(self) -> dict[str, Any]:
        """Solve the layer, unless edges that nothing was solved by say that it was better as it stood.

        Returns:
            The lowest Ritz values of the edges it was solved by, as a window of training has them; nothing if the
            layer stands as it stood.

        Communication: one all-reduce of the sums of either kind, one of the solution.
        """
        device, before = next(self.model.parameters()).device, self.sampler.growth
        wanted = n_wanted(self.model.network.perceptron.head.in_features, self.n_edges)
        self.sampler.growth = growth = self._growth
        n_batches = math.ceil(wanted / (growth * self.batch_size))
        learned = self._sums((step % self.n_steps for step in range(n_batches)), device)
        self.sampler.growth = 1  # grown ones would hold edges of other steps
        judged = self._sums(range(self.n_steps, self.n_steps + N_JUDGED), device)
        self.sampler.growth = before
        values, solved = self._solved(learned)
        kept = self.objective.n_kept
        now, then = (float(ritz_values(judged, head)[:kept].sum()) for head in (self._head(), solved))
        if not solved.any() or then >= now:
            return {}
        self.model.network.set_head(solved)
        self.model.orthonormal.set_gram(solved.T @ learned["gram"] @ solved)
        found = values.tolist()
        return {"ritz_values": found, "ritz_sum": sum(found[:kept])}

    @property
    def _growth(self) -> int:
        return max(1, MANY_EDGES // self.batch_size) if self.n_rows <= FEW_ROWS else 1

    def _sums(self, steps: Iterable[int], device: torch.device) -> Sums:
        """Return the units' mean energy and Gram (1 + H, 1 + H) over the edges of batches, of all ranks together."""
        sums: Sums = {}
        n_batches = 0
        with multiplied_in("float32"):
            for step in steps:
                batch: EdgeBatch = self.sampler.batch(step).to(device)
                local = self.objective.local_sums(self.model.network.units(batch.vectors), batch)
                sums = {name: sums[name] + new for name, new in local.items()} if sums else local
                n_batches += 1
        return {name: total / n_batches for name, total in collectives.all_reduce_sum(sums).items()}

    def _solved(self, sums: Sums) -> tuple[Tensor, Tensor]:
        """Return the lowest Ritz values (E,) and their functions' coefficients (1 + H, E), those of the first rank.

        Zeros where fewer than E functions of the units are independent.
        """
        n_functions = self.model.network.n_functions
        values, rotation = rayleigh_ritz(sums["energy"], sums["gram"], tolerance=DEPENDENT)
        solved = torch.zeros(len(rotation), n_functions + 1, dtype=rotation.dtype, device=rotation.device)
        if rotation.shape[1] >= n_functions and collectives.rank() == 0:
            solved[:, :n_functions], solved[:n_functions, -1] = rotation[:, :n_functions], values[:n_functions]
        solved = collectives.all_reduce_sum({"solved": solved})["solved"]
        return solved[:n_functions, -1].clamp(min=0), solved[:, :n_functions]

    def _head(self) -> Tensor:
        """Return the coefficients (1 + H, E) of the layer as it stands."""
        head = self.model.network.perceptron.head
        learned = torch.cat([head.bias[None], head.weight.T]).double()
        constant = torch.zeros_like(learned[:, :1])
        constant[0] = 1
        return torch.cat([constant, learned], dim=1)


def n_wanted(n_units: int, n_edges: float) -> int:
    """Return how many edges the layer behind so many units is solved by, of a graph of ``n_edges``."""
    return int(min(EDGES_PER_UNIT * (1 + n_units), 4 * n_edges))


def ritz_values(sums: Sums, coefficients: Tensor) -> Tensor:
    """Return the Ritz values, ascending, of functions ``units @ coefficients`` by the units' energy and Gram."""
    energy, gram = (coefficients.T @ sums[name] @ coefficients for name in ("energy", "gram"))
    return rayleigh_ritz(energy, gram)[0]

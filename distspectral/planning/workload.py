"""What the formulas take of a config and of the rows' width: stages, networks, steps.

Shape letters: D features of a row, B rows of a batch.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING

from distspectral.errors import ConfigError
from distspectral.graph.config import GraphConfig
from distspectral.stages.plan import METRIC_CHAIN

if TYPE_CHECKING:
    from distspectral.config import RunConfig

TRAININGS = ("autoencoder", "siamese", "train")
NEIGHBORS = ("neighbors", "siamese_neighbors")
GRAPHS = ("graph", "siamese_graph", "reweight")


@dataclasses.dataclass(frozen=True)
class Training:
    """One training.

    Attributes:
        steps: the budget; a plateau may end it sooner.
        batch: edges, pairs or rows of a step, all workers together.
        ends: rows that one of these takes.
        weights: of the network.
        width: features of a row that it sees.
        reads: stages whose rows it gathers.
    """

    steps: int
    batch: int
    ends: int
    weights: int
    width: int
    reads: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Workload:
    """One run's shape, whatever its number of rows.

    Attributes:
        chain: names of the stages, in order.
        dim: D.
        graph: the section ``graph``.
        searched: by stage of searching, the stage whose rows are searched and their width.
        trainings: by stage.
        networks: by stage that sends rows through a network, its number of weights.
        represented: stage whose rows are searched and learned from.
        seen: stages whose rows, side by side, the network is trained on.
        n_functions: functions trained, or the width of a metric.
        n_clusters: 20 where they are chosen by the spectrum.
        hidden: hidden layers of the network.
        sample_rows: rows that k-means sees.
        batch_rows: rows embedded at a time.
    """

    chain: tuple[str, ...]
    dim: int
    graph: GraphConfig
    searched: Mapping[str, tuple[str, int]]
    trainings: Mapping[str, Training]
    networks: Mapping[str, int]
    represented: str
    seen: tuple[str, ...]
    n_functions: int
    n_clusters: int
    hidden: tuple[int, ...]
    sample_rows: int
    batch_rows: int

    @property
    def seen_dim(self) -> int:
        """Features that the trained network sees."""
        return self.trainings["train"].width


def n_weights(*widths: int) -> int:
    """Return the weights of a perceptron of these widths, biases left out: half its operations a row."""
    return sum(a * b for a, b in itertools.pairwise(widths))


def workload(config: RunConfig, dim: int) -> Workload:
    """Return the shape of a run; ``representation: auto`` is planned with codes, where it makes any.

    Args:
        config: the run.
        dim: D.

    Raises:
        ConfigError: the network is a module of the user's own, of unknown size.
    """
    chain = tuple(config.chain(dim))
    if config.chain(dim) is METRIC_CHAIN:
        return _metric(config, dim, chain)
    auto, siamese = config.autoencoder, config.siamese
    represented, width = ("codes", auto.n_components) if "codes" in chain else ("pack", dim)
    widths = {"pack": dim, "codes": auto.n_components, "features": siamese.n_components}
    of_space = {"vector": "pack", "code": "codes", "siamese": "features"}
    seen: tuple[str, ...]
    if config.train.inputs == "auto":
        seen = (represented, "features") if "features" in chain else (represented,)
    else:
        seen = tuple(of_space[space] for space in config.train.inputs)
    seen_dim, n_functions = sum(widths[name] for name in seen), config.spectral_settings.n_functions
    encoder = n_weights(dim, *auto.hidden, auto.n_components)
    of_siamese = n_weights(width, *siamese.hidden, siamese.n_components)
    functions = n_weights(seen_dim, *config.network.hidden, n_functions - 1)
    trainings = {
        "autoencoder": Training(auto.max_steps, auto.batch_size, 1, 2 * encoder, dim, ("pack",)),
        "siamese": Training(siamese.max_steps, siamese.batch_size, 2, of_siamese, width, (represented,)),
        "train": Training(config.train.max_steps, config.train.batch_size, 2, functions, seen_dim, seen),
    }
    before = (encoder if represented == "codes" else 0) + (of_siamese if "features" in seen else 0)
    networks = {"codes": encoder, "features": of_siamese, "calibrate": functions, "embed": before + functions}
    n_clusters = config.cluster.n_clusters
    return Workload(
        chain=chain,
        dim=dim,
        graph=config.graph,
        searched={"neighbors": (represented, width), "siamese_neighbors": ("features", siamese.n_components)},
        trainings={name: one for name, one in trainings.items() if name in chain},
        networks=networks,
        represented=represented,
        seen=seen,
        n_functions=n_functions,
        n_clusters=20 if n_clusters == "auto" else n_clusters,
        hidden=config.network.hidden,
        sample_rows=config.cluster.sample_rows,
        batch_rows=config.embed.batch_rows,
    )


def _metric(config: RunConfig, dim: int, chain: tuple[str, ...]) -> Workload:
    if config.network.trunk is not None:
        raise ConfigError(
            f"network.trunk: is {config.network.trunk}, whose cost at other sizes cannot be told; plan with "
            "network.hidden, or run a part of the rows"
        )
    width = config.dscl.n_components
    weights = n_weights(dim, *config.network.hidden, width)
    return Workload(
        chain=chain,
        dim=dim,
        graph=config.graph,
        searched={},
        trainings={"train": Training(config.train.max_steps, config.train.batch_size, 1, weights, dim, ("pack",))},
        networks={"encode": weights},
        represented="pack",
        seen=("pack",),
        n_functions=width,
        n_clusters=0,
        hidden=config.network.hidden,
        sample_rows=0,
        batch_rows=config.embed.batch_rows,
    )

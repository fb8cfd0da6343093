"""The learned metric at every row, by the network of the stage ``train``."""

from __future__ import annotations

import functools

from torch import nn

from distspectral.embedding.encode import encode
from distspectral.mapping import Mapper, local_map
from distspectral.models.state import restored
from distspectral.stages.encoding import encoding_stage
from distspectral.stages.stage import Work
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.artifact.manifest import Manifest
from distspectral.storage.artifact.output import Output
from distspectral.training.dscl import DSCLSettings, build_model


def embed_metric(
    vectors: Artifact, training: Artifact, output: Output, settings: DSCLSettings, mapper: Mapper = local_map
) -> Manifest:
    """Write the artifact ``embedding``: vectors whose cosines are the learned similarity, ids and labels kept.

    Args:
        vectors: finished ``vectors`` artifact, the rows trained on or others of their width.
        training: finished ``training`` artifact.
        output: where the artifact ``embedding`` goes.
        settings: those the network was trained with.
        mapper: hands out the shards that are still missing.
    """
    facts = training.manifest().properties
    load = functools.partial(load_metric, training, settings)
    kept = {name: facts[name] for name in ("n_train_classes", "last_train_class")}
    return encode((vectors,), output, load, settings.train.device, mapper, kept)


def load_metric(training: Artifact, settings: DSCLSettings) -> nn.Module:
    """Return the trained metric of a finished ``training`` artifact on the CPU, ready to evaluate."""
    facts = training.manifest().properties
    model = build_model(facts["dim"], settings, facts["n_components"])
    restored(training, "model.pt", model.load_state_dict)
    return (model if settings.dscl.whiten else model.network).eval()


def _run(work: Work) -> Manifest:
    return embed_metric(
        work.artifacts["pack"], work.artifacts["train"], work.output, work.settings["train"], work.mapper
    )


EMBED_METRIC = encoding_stage(
    "embed",
    coder=lambda recipe: "train",
    load=lambda work: load_metric(work.artifacts["train"], work.settings["train"]),
    folder="embedding",
    purpose="Embed every row by the learned metric.",
    done="embedded",
    inputs=lambda recipe: ("pack", "train"),
    sections=("train.dscl.whiten",),
    run=_run,
)

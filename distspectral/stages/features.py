"""Every row's place in the Siamese space: the rows, or their codes, through the Siamese network."""

from __future__ import annotations

import functools

from distspectral.embedding.encode import encode
from distspectral.mapping import Mapper, local_map
from distspectral.models.networks import Perceptron
from distspectral.models.state import restored
from distspectral.stages.encoding import encoding_stage
from distspectral.stages.stage import Work
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.artifact.manifest import Manifest
from distspectral.storage.artifact.output import Output


def encode_features(
    vectors: Artifact, training: Artifact, output: Output, device: str = "auto", mapper: Mapper = local_map
) -> Manifest:
    """Write the artifact ``features``: a vectors artifact of the Siamese network's outputs.

    Arguments as of :func:`distspectral.stages.codes.encode_codes`.

    Raises:
        CollapsedError: all rows have come to lie on one point.
    """
    return encode((vectors,), output, functools.partial(load_siamese, training), device, mapper, trained="siamese")


def load_siamese(training: Artifact) -> Perceptron:
    """Return the network of a finished Siamese training on the CPU, ready to evaluate."""
    return restored(training, "model.pt", Perceptron.from_state)


def _run(work: Work) -> Manifest:
    device = work.settings["siamese"].train.device
    searched = work.artifacts[work.recipe.searched]
    return encode_features(searched, work.artifacts["siamese"], work.output, device, work.mapper)


FEATURES = encoding_stage(
    "features",
    coder=lambda recipe: "siamese",
    load=lambda work: load_siamese(work.artifacts["siamese"]),
    rows=lambda recipe: recipe.searched,
    folder="features",
    purpose="Map every row by the Siamese network.",
    done="encoded",
    inputs=lambda recipe: (*recipe.may_search, "siamese"),
    run=_run,
)

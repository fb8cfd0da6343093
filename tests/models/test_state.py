from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from distspectral.errors import DamagedArtifactError
from distspectral.models.state import read_state, restored, write_state
from distspectral.stages.calibrate import load_calibrated_network
from distspectral.stages.cluster import load_assigner
from distspectral.stages.codes import load_encoder
from distspectral.stages.features import load_siamese
from distspectral.storage.artifact.directory import Artifact

STATES: list[Any] = [{}, {"perceptron": {}}, {"centroids": torch.zeros(2, 2)}, [1, 2], torch.zeros(3), None, "text"]


@pytest.mark.parametrize("state", STATES, ids=lambda state: type(state).__name__)
@pytest.mark.parametrize(
    ("load", "name"),
    [
        (load_calibrated_network, "model.pt"),
        (load_assigner, "clusters.pt"),
        (load_encoder, "model.pt"),
        (load_siamese, "model.pt"),
    ],
)
def test_a_state_without_its_keys_is_damage_by_the_files_name(
    tmp_path: Path, load: Callable[[Artifact], object], name: str, state: Any
) -> None:
    artifact = Artifact(str(tmp_path))
    write_state(artifact, name, state)
    with pytest.raises(DamagedArtifactError, match=rf"/{name}: does not hold what it should .*run the stage again"):
        load(artifact)


def test_a_whole_state_is_what_was_written(tmp_path: Path) -> None:
    write_state(Artifact(str(tmp_path)), "a.pt", {"a": torch.arange(3)})
    assert restored(Artifact(str(tmp_path)), "a.pt", lambda state: state["a"].tolist()) == [0, 1, 2]


def test_a_state_comes_back(tmp_path: Path) -> None:
    artifact = Artifact(str(tmp_path))
    write_state(artifact, "state.pt", {"model": {"weight": torch.ones(2)}, "steps": [3, torch.tensor(4)], "none": None})
    state = read_state(artifact, "state.pt")
    assert state["model"]["weight"].tolist() == [1, 1]
    assert state["steps"] == [3, torch.tensor(4)]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_tensor_that_is_not_finite_is_refused_by_file_and_place(tmp_path: Path, value: float) -> None:
    artifact = Artifact(str(tmp_path))
    write_state(artifact, "state.pt", {"model": [{"0.weight": torch.tensor([1, value])}]})
    with pytest.raises(DamagedArtifactError, match=r"state\.pt: model\.0\.0\.weight holds NaN or infinity"):
        read_state(artifact, "state.pt")

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from distspectral.errors import DamagedArtifactError
from distspectral.storage.artifact.directory import Artifact
from distspectral.training.checkpoint import read_state, write_state


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

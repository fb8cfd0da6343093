"""Checkpoints of a training that is not finished: written as it goes on, read back from the newest that is whole."""

from __future__ import annotations

import logging
from typing import Any

from pyarrow import fs

from distspectral.errors import ArtifactError, DamagedArtifactError
from distspectral.models.state import restored, write_state
from distspectral.storage.artifact.directory import Artifact
from distspectral.training.loop import Trainer
from distspectral.training.run_log import RunLog

CHECKPOINTS = "checkpoints"
CHECKPOINT_FILE = "checkpoint.pt"
"""In a folder of its own, where Ray Train keeps the checkpoints."""

logger = logging.getLogger(__name__)


class LocalTrainingObserver:
    """Of a single process: a log, and checkpoints in the artifact itself, the last ones kept."""

    def __init__(self, log: RunLog) -> None:
        self.log = log

    def window(self, record: dict[str, Any]) -> None:
        """Pass the window to the log."""
        self.log.window(record)

    def checkpoint(self, trainer: Trainer[Any, Any]) -> None:
        """Write a checkpoint, whole or not at all, then drop the oldest beyond those kept."""
        artifact = self.log.artifact
        self.log.write()
        state = trainer.state_dict() | {"history": self.log.history}
        write_state(artifact, f"{CHECKPOINTS}/step-{trainer.step:09d}.pt", state)
        own = [name for name in checkpoint_names(artifact) if not name.endswith(f"/{CHECKPOINT_FILE}")]
        for name in own[: -trainer.config.keep_checkpoints]:
            artifact.filesystem.delete_file(artifact.file_path(name))


def checkpoint_names(artifact: Artifact) -> list[str]:
    """Return the files of the artifact's checkpoints, oldest first, those of Ray Train included."""
    selector = fs.FileSelector(artifact.file_path(CHECKPOINTS), allow_not_found=True)
    found = []
    for info in artifact.filesystem.get_file_info(selector):
        if info.base_name.startswith("step-"):
            is_folder = info.type == fs.FileType.Directory
            found.append((info.base_name.removesuffix(".pt"), f"/{CHECKPOINT_FILE}" if is_folder else ".pt"))
    return [f"{CHECKPOINTS}/{name}{suffix}" for name, suffix in sorted(found)]


def restore(trainer: Trainer[Any, Any], artifact: Artifact) -> list[dict[str, Any]]:
    """Bring a trainer to the newest whole checkpoint, if there is any, and return the windows until then.

    Raises:
        DamagedArtifactError: there are checkpoints, but none is whole.
    """

    def taken_up(state: dict[str, Any]) -> list[dict[str, Any]]:
        trainer.load_state_dict(state)
        history: list[dict[str, Any]] = state["history"]
        return history

    names = checkpoint_names(artifact)
    for name in reversed(names):
        try:
            return restored(artifact, name, taken_up)
        except ArtifactError as error:
            logger.warning("%s; trying the checkpoint before it", error)
    if names:
        raise DamagedArtifactError(
            f"{artifact.uri}: none of its checkpoints can be read ({', '.join(names)}); "
            f"delete {artifact.uri}/{CHECKPOINTS} to train from the beginning"
        )
    return []

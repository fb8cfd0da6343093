"""The ranks of ``stages.train`` as Ray Train workers: DDP, gloo or NCCL, checkpoints through ``ray.train.report``."""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import os
import shutil
import tempfile
import threading
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import psutil
import ray.train
import ray.train.collective
import torch
from pyarrow import fs
from ray.exceptions import RayActorError
from ray.train import (
    Checkpoint,
    CheckpointConfig,
    CheckpointUploadMode,
    FailureConfig,
    RunConfig,
    ScalingConfig,
    TrainingFailedError,
)
from ray.train.torch import TorchConfig
from ray.train.v2._internal.constants import get_env_vars_to_propagate

from distspectral import logs
from distspectral.comm import collectives
from distspectral.config.ray import RayConfig, WorkerCount
from distspectral.devices import hidden_gpus
from distspectral.errors import DistSpectralError, OutputNotWritableError, WorkerLostError, first_line
from distspectral.models.state import write_state
from distspectral.orchestration.calls import with_traceback
from distspectral.orchestration.connection import is_own
from distspectral.orchestration.group import TEMPORARY, OneMachineConfig, OurTrainer, temporary_folder
from distspectral.orchestration.resources import Request, request, workers_for
from distspectral.stages.train import finish, open_trainer, standing_batches, trainer_summary
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.artifact.manifest import Manifest
from distspectral.storage.artifact.output import Output
from distspectral.training.checkpoint import CHECKPOINT_FILE, CHECKPOINTS, checkpoint_names, restore
from distspectral.training.loop import Trainer
from distspectral.training.run_log import OnWindow, RunLog, WindowReader
from distspectral.training.settings import TrainSettings

COLLECTIVE_TIMEOUT_S = 300
"""A rank that misses a collective for so long is taken for lost."""

SHRINK_S = 20
"""How long an elastic group waits for as many workers as it had; a worker needs some ten seconds to start."""

LOOK_S, LOOKS_PER_S = 0.1, 200
"""How often Ray Train's controller looks at its workers: after a pause, and at so many in a second at most."""

POLL_S = 0.5
"""How often the driver looks for new windows."""

logger = logging.getLogger(__name__)


class RayTrainingObserver:
    """Of one Ray Train worker; rank 0 owns the log and the checkpoint's content.

    Args:
        log: on rank 0, None elsewhere.
        standing: checkpoints that stood before; a step that is taken again gets another name, for Ray Train would
            delete the new one together with the old.
    """

    def __init__(self, log: RunLog | None, standing: Collection[str]) -> None:
        self.log = log
        self.taken = {PurePosixPath(name).parent.name for name in standing}

    def window(self, record: dict[str, Any]) -> None:
        """Pass the window to the log."""
        with collectives.raise_on_all_ranks():
            if self.log is not None:
                self.log.window(record | {"workers": collectives.world_size()})

    def checkpoint(self, trainer: Trainer[Any, Any]) -> None:
        """Hand the state to Ray Train, which stores it while training goes on; every rank must call this."""
        name, checkpoint = f"step-{trainer.step:09d}", None
        while name in self.taken:
            name += "-again"
        with collectives.raise_on_all_ranks():
            if self.log is not None:
                self.log.write()
                state = trainer.state_dict() | {"history": self.log.history}
                checkpoint = Checkpoint.from_directory(_written_here(state, self.log.artifact))
        ray.train.report(
            {"step": trainer.step},
            checkpoint=checkpoint,
            checkpoint_dir_name=name,
            checkpoint_upload_mode=CheckpointUploadMode.ASYNC,
            delete_local_checkpoint_after_upload=True,
        )


class ControllerLostError(WorkerLostError):
    """The process of Ray Train died that starts and watches the workers."""


def _written_here(state: dict[str, Any], artifact: Artifact) -> str:
    """Write a checkpoint to a temporary directory of this node, for Ray Train to store; return the directory.

    Raises:
        OutputNotWritableError: there is no space for it, here or, as far as that can be told, where it is to go.
    """
    folder = temporary_folder()
    try:
        write_state(Artifact(folder), CHECKPOINT_FILE, state)
        n_bytes = os.path.getsize(f"{folder}/{CHECKPOINT_FILE}")
        # Ray Train would take a full disk for a lost worker, and start again and again
        if artifact.is_local and shutil.disk_usage(artifact.path).free < 2 * n_bytes:
            raise OutputNotWritableError(
                f"{artifact.uri}/{CHECKPOINTS}: no space left for another checkpoint of {n_bytes:,} bytes; free some "
                "or choose another root, then run again to go on"
            )
    except BaseException:
        shutil.rmtree(folder)
        raise
    return folder


def train(
    vectors: Sequence[Artifact],
    graph: Artifact | None,
    output: Output,
    settings: TrainSettings,
    config: RayConfig,
    on_window: OnWindow | None = None,
) -> Manifest:
    """Train with Ray Train on the connected cluster; an interrupted run goes on from its last checkpoint.

    Args:
        vectors: finished ``vectors`` artifact, or several side by side, reachable from every worker.
        graph: finished ``graph`` artifact over the same rows, likewise; None where the objective needs none.
        output: where the artifact ``training`` goes.
        settings: of the objective.
        config: workers and what each gets.
        on_window: called in this process with each window's metrics.

    Raises:
        DistSpectralError: as it was raised on the ranks; a lost worker is retried, this is not, nor is any error of
            ranks that all live and have yet to take a step.
        WorkerLostError: workers died more often than ``config.task_retries``.
        ControllerLostError: the process died that watches them; until this one leaves Ray, it keeps what they held.
    """
    output.begin()
    _forget_damaged_snapshot(output.artifact)
    resources = request(config, output.stage, on_gpu=True)
    has_gpu = resources.num_gpus > 0
    on_gpu = has_gpu and settings.train.device != "cpu"
    is_alone = is_own()
    of_users = get_env_vars_to_propagate()
    workers = workers_for(config.workers, settings.train, on_gpu, resources.slots(ray.cluster_resources()))
    trainer = OurTrainer(
        # not as train_loop_config, which the controller would open, importing torch
        train_loop_per_worker=functools.partial(
            _train_rank,
            {
                "vectors": tuple(vectors),
                "graph": graph,
                "artifact": output.artifact,
                "settings": settings,
                "n_threads": resources.n_threads,
                "has_gpu": has_gpu,
                "log_context": logs.context(),
            },
        ),
        backend_config=(OneMachineConfig if is_alone else TorchConfig)(
            backend=collectives.GPU_BACKENDS if on_gpu else collectives.CPU_BACKEND, timeout_s=COLLECTIVE_TIMEOUT_S
        ),
        scaling_config=_scaling(config.workers, workers, resources),
        run_config=RunConfig(
            name=CHECKPOINTS,
            storage_path=output.artifact.path,
            storage_filesystem=output.artifact.filesystem,
            failure_config=FailureConfig(max_failures=config.task_retries),
            checkpoint_config=CheckpointConfig(num_to_keep=settings.train.keep_checkpoints),
            worker_runtime_env={"env_vars": of_users} if of_users else {},
        ),
        environment=_patience(config, workers) | of_users,
        is_alone=is_alone,
    )
    with _windows_passed_on(output.artifact, on_window):
        try:
            result = trainer.fit().return_value
        except TrainingFailedError as error:
            failures: dict[int, Exception] = getattr(error, "worker_failures", {})
            ranks = ", ".join(str(rank) for rank in sorted(failures)) or "none (Ray Train's controller failed)"
            cause = next(iter(failures.values()), error)
            raise WorkerLostError(
                f"training failed more often than ray.task_retries = {config.task_retries}; ranks of the last failure: "
                f"{ranks}; cause: {str(cause).strip().splitlines()[-1]}; run again to go on from the last checkpoint",
                ["ray.task_retries"],
            ) from error
        except RayActorError as error:
            raise ControllerLostError(
                f"training: Ray Train's controller, a process beside this one, was lost ({first_line(error)}); run "
                "again to go on from the last checkpoint"
            ) from error
    if isinstance(result, Exception):
        raise result
    return finish(vectors, output, settings, result)


def _scaling(asked: int | WorkerCount | Literal["auto"], most: int, resources: Request) -> ScalingConfig:
    """Return how many workers to ask for, and what each gets."""
    each: dict[str, Any] = {
        "use_gpu": resources.num_gpus > 0,
        "resources_per_worker": resources.bundle,
        "label_selector": resources.labels or None,
    }
    if not isinstance(asked, WorkerCount):
        return ScalingConfig(num_workers=most, **each)
    return ScalingConfig(num_workers=(asked.min, most), **each, elastic_resize_monitor_interval_s=asked.check_s)


def _patience(config: RayConfig, workers: int) -> dict[str, str]:
    """Return how long Ray Train waits for workers that fail to meet, and an elastic group for a lost node to return.

    And how often it looks at each: by default every two seconds, of which a training's end takes two or three.
    """
    patience = {
        "RAY_TRAIN_COLLECTIVE_TIMEOUT_S": str(2 * COLLECTIVE_TIMEOUT_S),
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": str(min(LOOK_S + workers / LOOKS_PER_S, 2.0)),
        "RAY_WARN_BLOCKING_GET_INSIDE_ASYNC": "0",  # as Ray Train says
    }
    if isinstance(config.workers, WorkerCount):
        patience["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] = str(SHRINK_S)
    return patience


def _forget_damaged_snapshot(artifact: Artifact) -> None:
    """Remove Ray Train's own list of checkpoints where it was cut off or names one that is gone.

    It is not written atomically, and Ray Train would refuse to start on it;
    :func:`distspectral.training.checkpoint.restore` looks at the checkpoints themselves. It is the one JSON file
    beside them, whatever its name.
    """
    selector = fs.FileSelector(artifact.file_path(CHECKPOINTS), allow_not_found=True)
    standing = {PurePosixPath(one).parent.name for one in checkpoint_names(artifact)}
    for name in (info.base_name for info in artifact.filesystem.get_file_info(selector) if info.extension == "json"):
        snapshot = f"{CHECKPOINTS}/{name}"
        try:
            listed = {one["checkpoint_dir_name"] for one in artifact.read_json(snapshot)["checkpoint_results"]}
        except (ValueError, KeyError, TypeError):
            listed = {"a snapshot that cannot be read"}
        if missing := ", ".join(sorted(listed - standing)):
            logger.warning("%s/%s: names %s, which is not there; forgotten", artifact.uri, snapshot, missing)
            artifact.delete_file(snapshot)


def _train_rank(config: dict[str, Any]) -> dict[str, Any] | Exception | None:
    """Train one rank; return the summary on rank 0, or the error that this rank met.

    An error that would come again is returned, for Ray Train retries what is raised: one of ours, or any that a group
    meets before its first step although all its workers live. Storage may answer the next time.
    """
    torch.set_num_threads(config["n_threads"])
    logs.adopt_context(config["log_context"], collectives.rank())
    gpus = contextlib.nullcontext() if config["has_gpu"] else hidden_gpus()
    trainer: Trainer[Any, Any] | None = None
    first: float = math.inf
    try:
        with gpus, logs.timed("training", workers=collectives.world_size()):
            batches = standing_batches(config["artifact"])
            trainer = open_trainer(config["vectors"], config["graph"], config["settings"], batches)
            standing = checkpoint_names(config["artifact"])
            history = restore(trainer, config["artifact"])
            first = trainer.step
            log = RunLog(config["artifact"], history) if collectives.rank() == 0 else None
            trainer.fit(RayTrainingObserver(log, standing))
            return None if log is None else trainer_summary(trainer, config["artifact"], log.history)
    except Exception as error:
        has_begun = trainer is not None and trainer.step > first
        if not isinstance(error, DistSpectralError) and (has_begun or isinstance(error, OSError)):
            raise
        if not has_begun:
            logger.exception("training cannot begin")
            ray.train.collective.barrier()  # Ray ends the group here, and starts another, if a worker was lost
        return with_traceback(error)
    finally:
        remove_left_over()


def remove_left_over() -> None:
    """Remove what workers and controllers on this node left that were killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{TEMPORARY}*"):
        owner = folder.name.removeprefix(TEMPORARY).partition("-")[0]
        if owner.isdecimal() and not psutil.pid_exists(int(owner)):
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _windows_passed_on(artifact: Artifact, on_window: OnWindow | None) -> Iterator[None]:
    """Pass the windows that rank 0 writes, possibly on another node, to ``on_window`` in this process.

    Ray Train's own callbacks run in its controller, an actor that would need a way to this process in turn.
    """
    if on_window is None:
        yield
        return
    reader, ended = WindowReader(artifact), threading.Event()

    def follow() -> None:
        is_over = False
        while not is_over:
            is_over = ended.wait(POLL_S)
            for record in reader.new():
                on_window(record)

    thread = threading.Thread(target=follow, name="windows", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()

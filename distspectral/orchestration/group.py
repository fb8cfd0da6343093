"""A group of Ray Train's that starts sooner: fewer processes, which import less and may be those that wait for work.

Ray Train's controller imports what it is given, so nothing here imports torch but in the ranks; and a process that is
given environment variables of its own is always a new one, so none is.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import shutil
import tempfile
from typing import Any

import ray
from ray.exceptions import GetTimeoutError
from ray.train.backend import Backend, BackendConfig
from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.execution.controller import TrainController
from ray.train.v2._internal.execution.worker_group import WorkerGroup
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

LEAVE_S = 30
"""How long ranks may take to leave their process group."""

TEMPORARY = "distspectral-training-"
"""Directories where ranks meet, or of checkpoints that Ray Train has yet to store; the maker's process id follows."""

logger = logging.getLogger(__name__)


def temporary_folder() -> str:
    """Return a new directory of this node that tells by its name which process made it."""
    return tempfile.mkdtemp(prefix=f"{TEMPORARY}{os.getpid()}-")


class MeetingAtFile(Backend):  # type: ignore[misc]
    """Ranks of one machine meet at a file that only this user reads; torch's TCP store listens at every address."""

    share_cuda_visible_devices = True

    def on_start(self, worker_group: Any, backend_config: OneMachineConfig) -> None:
        """Form the process group."""
        self.folder = temporary_folder()
        arguments = dataclasses.asdict(backend_config) | {
            "world_size": len(worker_group),
            "init_method": f"file://{self.folder}/ranks",
        }
        ranks = range(len(worker_group))
        ray.get([worker_group.execute_single_async(rank, _meet, world_rank=rank, **arguments) for rank in ranks])

    def on_shutdown(self, worker_group: Any, backend_config: OneMachineConfig) -> None:
        """End the process group."""
        try:
            ray.get(worker_group.execute_async(_part, len(worker_group) > 1), timeout=LEAVE_S)
        except GetTimeoutError:
            logger.warning("ranks did not leave their process group within %d seconds", LEAVE_S)
        shutil.rmtree(self.folder, ignore_errors=True)


@dataclasses.dataclass
class OneMachineConfig(BackendConfig):  # type: ignore[misc]
    """Of ranks that share a machine with each other and with nobody else.

    Attributes:
        backend: of ``torch.distributed``.
        timeout_s: of a collective.
    """

    backend: str
    timeout_s: int

    @property
    def backend_cls(self) -> type[Backend]:
        """What forms the process group."""
        return MeetingAtFile

    @property
    def train_func_context(self) -> Any:
        """What the ranks train in: with the GPU that each was given."""
        from ray.train.torch.config import TorchConfigContextManager

        return TorchConfigContextManager


def _meet(**arguments: Any) -> None:
    from ray.train.torch.config import _set_torch_distributed_env_vars, _setup_torch_process_group

    _set_torch_distributed_env_vars()
    _setup_torch_process_group(**arguments)


def _part(is_group: bool) -> None:
    from ray.train.torch.config import _shutdown_torch

    _shutdown_torch(destroy_process_group=is_group)


class OurWorkerGroup(WorkerGroup):  # type: ignore[misc]
    """Does not give the workers the controller's variables, of which they need none."""

    @staticmethod
    def _get_worker_runtime_env(custom_runtime_env: Any) -> Any:
        return custom_runtime_env


class OurTrainController(TrainController):  # type: ignore[misc]
    """Takes its variables as an argument.

    Args:
        environment: variables.
        of_ray_train: all that Ray Train gives its controller.
    """

    worker_group_cls = OurWorkerGroup

    def __init__(self, environment: dict[str, str], **of_ray_train: Any) -> None:
        os.environ.update(environment)
        super().__init__(**of_ray_train)


class OurTrainer(DataParallelTrainer):  # type: ignore[misc]
    """Leaves Ctrl-C to whoever called: Ray's handler waits for its controller, and stays when training is over.

    Args:
        environment: variables of the controller.
        is_alone: whether the cluster is this run's own and ends with it. Nobody needs to watch there for nodes that
            are about to be taken away, nor to free what a lost controller held; either would be one more process.
        of_ray_train: all that Ray's ``DataParallelTrainer`` takes, but for datasets.
    """

    def __init__(self, *, environment: dict[str, str], is_alone: bool, **of_ray_train: Any) -> None:
        super().__init__(**of_ray_train)
        self._left_out = (DatasetsCallback, PlacementGroupCleanerCallback) if is_alone else (DatasetsCallback,)
        self._environment = environment | ({"RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0"} if is_alone else {})

    def _create_default_callbacks(self) -> list[Any]:
        return [one for one in super()._create_default_callbacks() if not isinstance(one, self._left_out)]

    def _initialize_and_run_controller(self, **arguments: Any) -> Any:
        here = {ray._raylet.RAY_NODE_ID_KEY: ray.get_runtime_context().get_node_id()}
        controller = ray.remote(OurTrainController).options(num_cpus=0, label_selector=here)
        running = controller.remote(self._environment, **arguments)
        ray.get(running.run.remote())
        return ray.get(running.get_result.remote())

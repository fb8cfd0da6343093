"""A predictor behind HTTP on Ray Serve: replicas that answer, rows of several requests passing the network together.

The process that serves speaks HTTP itself; Ray Serve keeps replicas alive and hands them whole requests. All of them
have the model that this process loaded, whatever becomes of its files.

Who may ask is nobody's question here, and a replica computes for whoever asks. Hence the server listens at 127.0.0.1
unless told otherwise: put what checks passwords and speaks TLS before it.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import signal
import socket
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray
from pydantic import Field, NonNegativeFloat, PositiveInt
from ray.exceptions import RayError

from distspectral import logs
from distspectral.config.ray import RayConfig
from distspectral.errors import (
    BusyError,
    ConfigError,
    MissingDependencyError,
    RequestError,
    WorkerLostError,
    first_line,
)
from distspectral.frozen import FrozenModel
from distspectral.orchestration.connection import connect, disconnect
from distspectral.orchestration.resources import wants_gpus
from distspectral.serving.predictor import Predictor
from distspectral.serving.service import Answer, Service, reply

try:
    from ray import serve
    from ray.serve.config import ProxyLocation
    from ray.serve.exceptions import RayServeException
    from ray.serve.handle import DeploymentHandle

    from distspectral.serving.http import ROUTES, Front, Reply, bound_socket, listening, refusal
except ImportError as missing:
    raise MissingDependencyError(f"{missing}; Ray Serve needs: pip install 'distspectral[serve]'") from missing

APP = "distspectral"
REPLICA = "replica"

ANSWERED_TOGETHER = 64
"""Requests that one replica holds, and so may answer together; Serve's own 5 would bound a batch of single rows."""

WAITING_REQUESTS = 1024
"""Requests that wait for a replica; further ones are sent away."""

STATUS_S = 5.0
"""In which Serve has to say how many replicas there are."""


class ServeConfig(FrozenModel):
    """How a model is served. Nothing here changes an answer."""

    host: str = Field("127.0.0.1", description="address to listen at")
    port: PositiveInt = Field(8000, description="port to listen at")
    replicas: PositiveInt = Field(1, description="processes that answer, a CPU each, and a GPU where there are enough")
    max_batch: PositiveInt = Field(1024, description="rows at most of a request, and of a pass through the network")
    wait_ms: NonNegativeFloat = Field(2.0, description="milliseconds that a request waits for others to join it")


@dataclasses.dataclass(frozen=True)
class Served:
    """A server that answers.

    Attributes:
        address: such as ``http://127.0.0.1:8000``.
        hurry: gives up, at the end, on requests that have begun.
    """

    address: str
    hurry: Callable[[], None]


def n_rows(requests: list[NDArray[np.float32]]) -> int:
    """Return the rows of all requests together, the size that bounds a batch."""
    return sum(len(rows) for rows in requests)


class Replica:
    """One process that answers.

    Args:
        model: one reference to a :class:`Predictor`; within a list, so that it is not read on the way here.
        config: of the whole server.
    """

    def __init__(self, model: list[ray.ObjectRef[Predictor]], config: ServeConfig) -> None:
        self.service = Service(ray.get(model[0]), config.max_batch)
        self.together.set_max_batch_size(config.max_batch)
        self.together.set_batch_wait_timeout_s(config.wait_ms / 1000)

    @serve.batch(batch_size_fn=n_rows)  # type: ignore[untyped-decorator]
    async def together(self, requests: list[NDArray[np.float32]]) -> list[Answer]:
        """Return the outputs of each request that waits; Serve hands them over one by one."""
        return self.service.answers(requests)

    async def answer(self, content_type: str, body: bytes) -> Reply:
        """Return the reply to a whole body."""
        try:
            return Reply(200, *reply(content_type, await self.together(self.service.rows(content_type, body))))
        except RequestError as error:
            return refusal(error)


@contextlib.contextmanager
def serving(predictor: Predictor, config: ServeConfig) -> Iterator[Served]:
    """Serve while the context lasts; in the end requests that have begun are answered.

    Joins Ray as a run does and leaves it as it was.

    Args:
        predictor: the model; every replica has this one, also one that takes another's place.
        config: where and how.

    Raises:
        ConfigError: the port is taken, no Ray answers, it has too few CPUs, or it serves something already.
        WorkerLostError: Serve or a replica did not start.
    """
    with contextlib.closing(bound_socket(config.host, config.port)) as bound, contextlib.ExitStack() as ends:
        if started_ray := connect(RayConfig(workers=config.replicas)):
            ends.callback(disconnect)
        if (n_cpus := int(ray.cluster_resources().get("CPU", 0))) < config.replicas:
            raise ConfigError(f"--replicas: is {config.replicas}, Ray has {n_cpus} CPUs; every replica takes one")
        if (status := serve.status()).applications or status.proxies:
            raise ConfigError(
                "Ray Serve runs in this cluster already; end it with `serve shutdown`, or unset RAY_ADDRESS for a Ray "
                "of one's own"
            )
        ends.enter_context(logs.level("ray.serve", logging.WARNING))
        if not started_ray:
            ends.callback(serve.shutdown)  # a Serve in a Ray of one's own ends with it
        handle = _start(predictor, config)

        async def answer(content_type: str, body: bytes) -> Reply:
            try:
                found: Reply = await handle.answer.remote(content_type, body)
            except (RayError, RayServeException) as error:
                raise BusyError(f"no replica answered ({first_line(error)}); send the request again later") from error
            return found

        model = predictor.card | {"fingerprints": predictor.inputs}
        front = Front(Service(predictor, config.max_batch, "cpu"), model, answer, _is_ready)
        hurry = ends.enter_context(listening(front, bound))
        yield Served(f"http://{config.host}:{config.port}", hurry)


def _start(predictor: Predictor, config: ServeConfig) -> DeploymentHandle:
    """Start Serve with the application, and wait until each replica has the model."""
    quiet: dict[str, Any] = {"log_level": "WARNING", "enable_access_log": False}
    deployment = serve.deployment(
        Replica,
        name=REPLICA,
        num_replicas=config.replicas,
        max_ongoing_requests=ANSWERED_TOGETHER,
        max_queued_requests=WAITING_REQUESTS,
        ray_actor_options={"num_cpus": 1, "num_gpus": int(wants_gpus(RayConfig(), config.replicas))},
        logging_config=quiet,
    )
    try:
        serve.start(proxy_location=ProxyLocation.Disabled, logging_config=quiet)
        app = deployment.bind([ray.put(predictor)], config)
        return serve.run(app, name=APP, route_prefix=None, logging_config=quiet)
    except (RayError, RuntimeError) as error:
        raise WorkerLostError(
            f"Ray Serve did not start ({first_line(error)}); its logs lie in "
            "/tmp/ray/session_latest/logs/serve on each node"
        ) from error


async def _is_ready() -> bool:
    """Return whether a replica runs."""
    try:
        status = await asyncio.wait_for(asyncio.to_thread(serve.status), STATUS_S)
        states = status.applications[APP].deployments[REPLICA].replica_states
    except (RayError, KeyError, TimeoutError):
        return False
    return bool(states.get("RUNNING", 0))


def serve_until_stopped(predictor: Predictor, config: ServeConfig, tell: Callable[[str], None]) -> None:
    """Serve until Ctrl-C or SIGTERM; a second one does not wait for requests that have begun.

    Args:
        predictor: see :func:`serving`.
        config: see :func:`serving`.
        tell: is told the address once it answers, and the end.
    """
    with serving(predictor, config) as served:
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # only now, for Ray sets its own when it starts
        try:
            tell(f"{served.address} answers {ROUTES}; Ctrl-C stops it")
            signal.pause()
        except KeyboardInterrupt:

            def hurry(number: int, frame: FrameType | None) -> None:
                served.hurry()

            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, hurry)
            tell("takes no more requests, and ends those that have begun")
    tell("stopped")


def free_port() -> int:
    """Return a port of 127.0.0.1 at which nobody listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

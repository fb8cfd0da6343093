"""A predictor behind HTTP on Ray: replicas that answer, rows of several requests passing the network together.

The process that serves speaks HTTP and hands whole requests to replicas, which are actors. All have the model that
this process loaded, whatever becomes of its files; Ray starts one anew that was lost. Ray Serve is not used: its
replicas listen at every address, which cannot be turned off.

Who may ask is nobody's question here, and a replica computes for whoever asks. Hence the server listens at 127.0.0.1
unless told otherwise: put what checks passwords and speaks TLS before it.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import signal
import socket
from collections.abc import Callable, Iterator
from types import FrameType

import ray
from pydantic import Field, NonNegativeFloat, PositiveInt
from ray.exceptions import RayError

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
from distspectral.serving.batching import Batcher
from distspectral.serving.predictor import Predictor
from distspectral.serving.service import Service, reply

try:
    from distspectral.serving.http import ROUTES, Front, Reply, bound_socket, listening, refusal
except ImportError as missing:
    raise MissingDependencyError(f"{missing}; a server needs: pip install '.[serve]'") from missing

ANSWERED_TOGETHER = 64
"""Requests that one replica works on at a time, and so may answer together."""

WAITING_REQUESTS = 1024
"""For each replica; further ones are sent away."""

START_S = 120.0
"""In which every replica has to have the model; a process alone takes ten on a busy machine."""

HEALTH_S = 5.0
"""In which one replica has to say that it is there."""


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


class Replica:
    """One process that answers.

    Args:
        predictor: the model.
        config: of the whole server.
    """

    def __init__(self, predictor: Predictor, config: ServeConfig) -> None:
        self.service = Service(predictor, config.max_batch)
        self.batcher = Batcher(self.service.answers, config.max_batch, config.wait_ms / 1000)

    async def answer(self, content_type: str, body: bytes) -> Reply:
        """Return the reply to a whole body."""
        try:
            return Reply(200, *reply(content_type, await self.batcher.answer(self.service.rows(content_type, body))))
        except RequestError as error:
            return refusal(error)

    @ray.method(concurrency_group="health")  # type: ignore[untyped-decorator]
    async def is_here(self) -> bool:
        """Return that the model is loaded, however many requests wait."""
        return True


class Replicas:
    """All processes that answer.

    Args:
        predictor: the model, kept by Ray for those that it starts anew.
        config: of the whole server.
    """

    def __init__(self, predictor: Predictor, config: ServeConfig) -> None:
        actor = ray.remote(
            num_cpus=1,
            num_gpus=int(wants_gpus(RayConfig(), config.replicas)),
            max_restarts=-1,
            max_task_retries=1,
            max_concurrency=ANSWERED_TOGETHER,
            concurrency_groups={"health": 1},
        )(Replica)
        self.model = ray.put(predictor)  # held here, for Ray forgets the arguments of an actor that has started
        self.actors = [actor.remote(self.model, config) for _ in range(config.replicas)]
        self.n_asked = [0] * config.replicas

    def start(self) -> None:
        """Wait until each has the model.

        Raises:
            WorkerLostError: one has not.
        """
        try:
            ray.get([actor.is_here.remote() for actor in self.actors], timeout=START_S)
        except RayError as error:
            raise WorkerLostError(
                f"a replica did not start in {START_S:g} s ({first_line(error)}); its logs lie in "
                "/tmp/ray/session_latest/logs on each node"
            ) from error

    async def answer(self, content_type: str, body: bytes) -> Reply:
        """Return the reply of the replica that has the least to do.

        Raises:
            BusyError: all have too much to do, or it was lost twice.
        """
        chosen = self.n_asked.index(min(self.n_asked))
        if self.n_asked[chosen] >= WAITING_REQUESTS:
            raise BusyError("too many requests wait; send this one again later")
        self.n_asked[chosen] += 1
        try:
            found: Reply = await self.actors[chosen].answer.remote(content_type, body)
        except RayError as error:
            raise BusyError(f"a replica was lost ({first_line(error)}); send the request again later") from error
        finally:
            self.n_asked[chosen] -= 1
        return found

    async def is_ready(self) -> bool:
        """Return whether one of them is there."""
        there = [asyncio.wrap_future(actor.is_here.remote().future()) for actor in self.actors]
        for one in asyncio.as_completed(there, timeout=HEALTH_S):
            with contextlib.suppress(RayError, TimeoutError):
                await one
                return True
        return False

    def stop(self) -> None:
        """End them."""
        for actor in self.actors:
            ray.kill(actor)


@contextlib.contextmanager
def serving(predictor: Predictor, config: ServeConfig) -> Iterator[Served]:
    """Serve while the context lasts; in the end requests that have begun are answered.

    Joins Ray as a run does and leaves it as it was.

    Args:
        predictor: the model; every replica has this one, also one that takes another's place.
        config: where and how.

    Raises:
        ConfigError: the port is taken, no Ray answers, or it has too few CPUs.
        WorkerLostError: a replica did not start.
    """
    with contextlib.ExitStack() as ends:
        bound = ends.enter_context(contextlib.closing(bound_socket(config.host, config.port)))
        if connect(RayConfig(workers=config.replicas)):
            ends.callback(disconnect)
        if (n_cpus := int(ray.cluster_resources().get("CPU", 0))) < config.replicas:
            raise ConfigError(f"--replicas: is {config.replicas}, Ray has {n_cpus} CPUs; every replica takes one")
        replicas = Replicas(predictor, config)
        ends.callback(replicas.stop)
        replicas.start()
        model = predictor.card | {"fingerprints": predictor.inputs}
        front = Front(Service(predictor, config.max_batch, "cpu"), model, replicas.answer, replicas.is_ready)
        hurry = ends.enter_context(listening(front, bound))
        yield Served(f"http://{config.host}:{config.port}", hurry)


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

"""A predictor behind HTTP on Ray Serve: replicas that answer, rows of several requests passing the network together.

Who may ask is nobody's question here, and a replica computes for whoever asks. Hence the server listens at 127.0.0.1
unless told otherwise: put what checks passwords and speaks TLS before it.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import socket
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray
from pydantic import Field, NonNegativeFloat, PositiveInt
from ray.exceptions import RayError

from distspectral import logs
from distspectral.config.ray import RayConfig
from distspectral.errors import ConfigError, MissingDependencyError, RequestError, WorkerLostError, first_line
from distspectral.frozen import FrozenModel
from distspectral.orchestration.connection import connect, disconnect
from distspectral.orchestration.environment import environment_defaults
from distspectral.orchestration.resources import wants_gpus
from distspectral.serving.predictor import Predictor
from distspectral.serving.service import Answer, Service, media_type, reply

try:
    from ray import serve
    from starlette.requests import Request
    from starlette.responses import JSONResponse, Response
except ImportError as missing:
    raise MissingDependencyError(f"{missing}; Ray Serve needs: pip install 'distspectral[serve]'") from missing

APP = "distspectral"

WAITING_REQUESTS = 64
"""Requests that one replica holds, and so may answer together; Serve's own 5 would bound a batch of single rows."""

START_S = 60.0
"""Seconds in which a proxy has to come up; Serve's own 5 are too few on a busy machine."""

ROUTES = "POST /embed, GET /health, GET /model"


class ServeConfig(FrozenModel):
    """How a model is served. Nothing here changes an answer."""

    host: str = Field("127.0.0.1", description="address to listen at")
    port: PositiveInt = Field(8000, description="port to listen at")
    replicas: PositiveInt = Field(1, description="processes that answer, a CPU each, and a GPU where there are enough")
    max_batch: PositiveInt = Field(1024, description="rows at most of a request, and of a pass through the network")
    wait_ms: NonNegativeFloat = Field(2.0, description="milliseconds that a request waits for others to join it")


def n_rows(requests: list[NDArray[np.float32]]) -> int:
    """Return the rows of all requests together, the size that bounds a batch."""
    return sum(len(rows) for rows in requests)


class Replica:
    """One process that answers.

    Args:
        load: returns the model.
        config: of the whole server.
    """

    def __init__(self, load: Callable[[], Predictor], config: ServeConfig) -> None:
        self.service = Service(load(), config.max_batch)
        self.answer.set_max_batch_size(config.max_batch)
        self.answer.set_batch_wait_timeout_s(config.wait_ms / 1000)

    @serve.batch(batch_size_fn=n_rows)  # type: ignore[untyped-decorator]
    async def answer(self, requests: list[NDArray[np.float32]]) -> list[Answer]:
        """Return the outputs of each request that waits; Serve hands them over one by one."""
        return self.service.answers(requests)

    async def __call__(self, request: Request) -> Response:
        """Return the answer to one HTTP request; what is wrong with it comes back as 4xx with ``error``."""
        try:
            match request.method, request.url.path:
                case "POST", "/embed":
                    return await self.embed(request)
                case "GET", "/health":
                    return JSONResponse({"status": "ok"})
                case "GET", "/model":
                    return JSONResponse(self.service.predictor.card)
                case method, path:
                    return JSONResponse({"error": f"{method} {path}: is not answered; there are {ROUTES}"}, 404)
        except RequestError as error:
            return JSONResponse({"error": str(error)}, error.status)

    async def embed(self, request: Request) -> Response:
        """Return the outputs of the rows in the body.

        Raises:
            RequestError: they cannot be used.
        """
        content_type = request.headers.get("content-type", "")
        media_type(content_type)
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            self.service.refuse_size(len(body))
        content, kind = reply(content_type, await self.answer(self.service.rows(content_type, bytes(body))))
        return Response(content, media_type=kind)


@contextlib.contextmanager
def serving(load: Callable[[], Predictor], config: ServeConfig) -> Iterator[str]:
    """Serve while the context lasts; yields the address, such as ``http://127.0.0.1:8000``.

    Joins Ray as a run does and leaves it as it was.

    Args:
        load: picklable; returns the model in each replica.
        config: where and how.

    Raises:
        ConfigError: the port is taken, no Ray answers, it has too few CPUs, or it serves something already.
        WorkerLostError: Serve or a replica did not start.
    """
    with environment_defaults(RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S=str(START_S)):  # a local Ray's workers inherit it
        started_ray = connect(RayConfig(workers=config.replicas))
    try:
        if (n_cpus := int(ray.cluster_resources().get("CPU", 0))) < config.replicas:
            raise ConfigError(f"--replicas: is {config.replicas}, Ray has {n_cpus} CPUs; every replica takes one")
        if serve.status().proxies:
            raise ConfigError(
                "Ray Serve runs in this cluster already, at an address of its own; end it with `serve shutdown`, or "
                "unset RAY_ADDRESS for a Ray of one's own"
            )
        if started_ray:
            refuse_taken(config)
        with logs.level("ray.serve", logging.WARNING), contextlib.ExitStack() as ends:
            if not started_ray:
                ends.callback(serve.shutdown)
            _start(load, config)
            if started_ray:
                ends.callback(serve.delete, APP)  # lets answers finish; the rest of Serve ends with its Ray
            yield f"http://{config.host}:{config.port}"
    finally:
        if started_ray:
            disconnect()


def _start(load: Callable[[], Predictor], config: ServeConfig) -> None:
    """Start Serve with the application, and wait until it answers."""
    quiet: dict[str, Any] = {"log_level": "WARNING", "enable_access_log": False}
    deployment = serve.deployment(
        Replica,
        num_replicas=config.replicas,
        max_ongoing_requests=WAITING_REQUESTS,
        ray_actor_options={"num_cpus": 1, "num_gpus": int(wants_gpus(RayConfig(), config.replicas))},
        logging_config=quiet,
    )
    try:
        serve.start(http_options={"host": config.host, "port": config.port}, logging_config=quiet)
        serve.run(deployment.bind(load, config), name=APP, route_prefix="/", logging_config=quiet)
    except (RayError, RuntimeError) as error:
        raise WorkerLostError(
            f"Ray Serve did not start ({first_line(error)}); its logs lie in "
            "/tmp/ray/session_latest/logs/serve on each node"
        ) from error


def serve_until_stopped(load: Callable[[], Predictor], config: ServeConfig, tell: Callable[[str], None]) -> None:
    """Serve until Ctrl-C or SIGTERM.

    Args:
        load: see :func:`serving`.
        config: see :func:`serving`.
        tell: is told the address once it answers.
    """
    with serving(load, config) as address, contextlib.suppress(KeyboardInterrupt):
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # only now, for Ray sets its own when it starts
        tell(f"{address} answers {ROUTES}; Ctrl-C stops it")
        signal.pause()


def free_port() -> int:
    """Return a port of 127.0.0.1 at which nobody listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def refuse_taken(config: ServeConfig) -> None:
    """Refuse an address at which a local server cannot listen; Serve itself would try again and again."""
    try:
        family, kind, proto, _, address = socket.getaddrinfo(config.host, config.port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, proto) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise ConfigError(
            f"--host {config.host} --port {config.port}: cannot be listened at ({error.strerror}); choose others"
        ) from error

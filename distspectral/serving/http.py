"""HTTP around a model that answers elsewhere: a body is read to its end, and in time, before anybody works on it.

A client that is slow, silent or gone therefore costs a connection and the bytes it has sent, never a place among those
that are answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import uvicorn
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from distspectral.errors import BusyError, ConfigError, RequestError, SlowBodyError
from distspectral.serving.service import JSON, Service, media_type

ROUTES = "POST /embed, GET /health, GET /model"

PATIENCE_S = 30.0
"""Seconds for the headers of a request, as many for its body, and as many for the client to take the answer."""

DRAIN_S = 10.0
"""Seconds in which requests that a stopping server has begun may end."""

HELD_BYTES = 256 << 20
"""Of all bodies that are read or wait for their answer, or four of the largest."""

RETRY_S = 1
"""After which a client that was sent away may ask again."""


@dataclasses.dataclass(frozen=True)
class Reply:
    """What a request is answered.

    Attributes:
        status: of HTTP.
        body: the content.
        content_type: of the body.
    """

    status: int
    body: bytes
    content_type: str


class Front:
    """The ASGI application.

    Args:
        service: says how long a body may be; it answers nothing here.
        model: what ``GET /model`` tells.
        answer: turns a Content-Type and a whole body into a reply.
        is_ready: says whether somebody is there to answer.
        patience_s: see :data:`PATIENCE_S`.
        held_bytes: see :data:`HELD_BYTES`.
    """

    def __init__(
        self,
        service: Service,
        model: dict[str, Any],
        answer: Callable[[str, bytes], Awaitable[Reply]],
        is_ready: Callable[[], Awaitable[bool]],
        *,
        patience_s: float = PATIENCE_S,
        held_bytes: int = HELD_BYTES,
    ) -> None:
        self.service, self.model, self.answer, self.is_ready = service, model, answer, is_ready
        self.patience_s, self.most_bytes = patience_s, max(held_bytes, 4 * service.max_bytes)
        self.held_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; what is wrong with it comes back as 4xx, what is wrong here as 503, with ``error``."""
        request = Request(scope, receive)
        try:
            response = await self.respond(request)
        except ClientDisconnect:
            return
        except RequestError as error:
            headers = {"Connection": "close"}  # the rest of the body may still be on its way
            if isinstance(error, BusyError):
                headers["Retry-After"] = str(RETRY_S)
            response = JSONResponse({"error": str(error)}, error.status, headers)
        await response(scope, receive, send)

    async def respond(self, request: Request) -> Response:
        """Return the answer.

        Raises:
            RequestError: there is none.
        """
        match request.method, request.url.path:
            case "POST", "/embed":
                return await self.embed(request)
            case "GET", "/health":
                if not await self.is_ready():
                    raise BusyError("no replica has the model")
                return JSONResponse({"status": "ok"})
            case "GET", "/model":
                return JSONResponse(self.model)
            case method, path:
                return JSONResponse({"error": f"{method} {path}: is not answered; there are {ROUTES}"}, 404)

    async def embed(self, request: Request) -> Response:
        """Return the outputs of the rows in the body.

        Raises:
            RequestError: the body is no such, too long or too slow, or too many wait.
        """
        content_type = request.headers.get("content-type", "")
        media_type(content_type)
        self.service.refuse_size(int(request.headers.get("content-length", 0)))
        body = bytearray()
        try:
            await self.read(request, body)
            reply = await self.answer(content_type, bytes(body))
        finally:
            self.held_bytes -= len(body)
        return Response(reply.body, reply.status, media_type=reply.content_type)

    async def read(self, request: Request, body: bytearray) -> None:
        """Append what a client sends to ``body``, counted in ``held_bytes``.

        Raises:
            RequestError: it is too much or too slow.
        """
        try:
            async with asyncio.timeout(self.patience_s):
                async for chunk in request.stream():
                    self.service.refuse_size(len(body) + len(chunk))
                    if self.held_bytes + len(chunk) > self.most_bytes:
                        raise BusyError("too many large requests wait; send this one again later")
                    self.held_bytes += len(chunk)
                    body += chunk
        except TimeoutError:
            raise SlowBodyError(
                f"body: {len(body)} bytes came in {self.patience_s:g} s, and no end; send it at once"
            ) from None


class Punctual(H11Protocol):
    """A connection to a :class:`Front` that is given up when headers, or the taking of an answer, last too long."""

    due: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self.wait()

    def on_response_complete(self) -> None:
        """Begin to wait for the next request."""
        super().on_response_complete()
        self.wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no longer."""
        super().connection_lost(exc)
        if self.due is not None:
            self.due.cancel()

    def wait(self) -> None:
        """Close the connection in a while, unless a request is answered then."""
        if self.due is not None:
            self.due.cancel()
        self.due = self.loop.call_later(self.app.patience_s, self.close_if_idle)

    def close_if_idle(self) -> None:
        """Close the connection unless a request is answered now."""
        if self.cycle is None or self.cycle.response_complete:
            self.transport.abort()


def bound_socket(host: str, port: int) -> socket.socket:
    """Return a socket that is bound to an address and does not listen yet.

    Raises:
        ConfigError: somebody else listens there, or the address is not of this machine.
    """
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, proto)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
        except OSError:
            bound.close()
            raise
    except OSError as error:
        raise ConfigError(
            f"--host {host} --port {port}: cannot be listened at ({error.strerror}); choose others"
        ) from error
    return bound


@contextlib.contextmanager
def listening(app: Front, bound: socket.socket) -> Iterator[Callable[[], None]]:
    """Answer at a socket while the context lasts; then take no more, and end what has begun.

    Yields:
        What gives up, at the end, on requests that have begun.
    """
    config = uvicorn.Config(
        app,
        http=Punctual,
        ws="none",
        proxy_headers=False,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=int(DRAIN_S),
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, name="http", daemon=True)

    def hurry() -> None:
        server.force_exit = True

    thread.start()
    try:
        while not server.started and thread.is_alive():
            thread.join(0.01)
        if not server.started:
            raise ConfigError("--port: cannot be listened at; choose another")
        yield hurry
    finally:
        server.should_exit = True
        thread.join()


def refusal(error: RequestError) -> Reply:
    """Return the reply to a body that was read and cannot be used."""
    response = JSONResponse({"error": str(error)})
    return Reply(error.status, bytes(response.body), JSON)

"""The HTTP server alone, before a model that is a function of this process."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import select
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from types import SimpleNamespace

import pytest

from distspectral.bench.random_model import RandomModel
from distspectral.errors import BusyError, ConfigError
from distspectral.serving import http as serving_http
from distspectral.serving.http import Front, Reply, bound_socket, listening
from distspectral.serving.service import JSON, Service

PATIENCE_S, LONG_S = 2.0, 600.0
"""Of a server whose deadlines are waited for, and of one that keeps none within a test."""
HANG_S = 120
"""After which a test gives up on what should have come, whatever the machine is busy with."""
MODEL = {"what": "a test"}
SERVICE = Service(RandomModel(3, (8,))(), 8, "cpu")
BODY = b'{"vectors": [[1, 2, 3]]}'
HEAD = f"POST /embed HTTP/1.1\r\nHost: x\r\nContent-Type: {JSON}\r\nContent-Length: {len(BODY)}\r\n\r\n".encode()

AnswerBody = Callable[[str, bytes], Awaitable[Reply]]


async def echo(content_type: str, body: bytes) -> Reply:
    return Reply(200, body, content_type)


@contextlib.contextmanager
def server(
    answer: AnswerBody = echo, ready: bool = True, held_bytes: int = 1 << 20, patience_s: float = LONG_S
) -> Iterator[int]:
    async def is_ready() -> bool:
        return ready

    front = Front(SERVICE, MODEL, answer, is_ready, patience_s=patience_s, held_bytes=held_bytes)
    with contextlib.closing(bound_socket("127.0.0.1", 0)) as bound, listening(front, bound):
        yield bound.getsockname()[1]


def ask(port: int, method: str = "GET", path: str = "/health", body: bytes = b"") -> tuple[int, bytes, str | None]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=HANG_S)
    with contextlib.closing(connection):
        connection.request(method, path, body, {"Content-Type": JSON})
        response = connection.getresponse()
        return response.status, response.read(), response.headers["Retry-After"]


def opened(port: int, sent: bytes) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), HANG_S)
    connection.sendall(sent)
    return connection


def received(connection: socket.socket) -> bytes:
    """What comes until the other side closes."""
    parts = []
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(1 << 16):
            parts.append(part)
    return b"".join(parts)


class Deadlines:
    """Stands for ``asyncio.timeout``: deadlines that come when the test says so."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self._running: set[asyncio.Timeout] = set()
        self._loop: asyncio.AbstractEventLoop | None = None

    @contextlib.asynccontextmanager
    async def timeout(self, seconds: float) -> AsyncIterator[None]:
        self._loop = asyncio.get_running_loop()
        async with asyncio.timeout(seconds) as deadline:
            self._running.add(deadline)
            self.begun.release()
            try:
                yield
            finally:
                self._running.remove(deadline)

    def come(self) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(lambda: [deadline.reschedule(0) for deadline in self._running])


@pytest.fixture
def deadlines(monkeypatch: pytest.MonkeyPatch) -> Deadlines:
    """The deadlines of bodies."""
    made = Deadlines()
    monkeypatch.setattr(serving_http, "asyncio", SimpleNamespace(timeout=made.timeout))
    return made


@pytest.mark.parametrize(
    "sent", [HEAD, HEAD + BODY[:1], HEAD.replace(b"Content-Length: 24", b"Transfer-Encoding: chunked")]
)
def test_a_hundred_slow_clients_keep_nobody_waiting(sent: bytes, deadlines: Deadlines) -> None:
    with server() as port, contextlib.ExitStack() as ends:
        slow = [ends.enter_context(opened(port, sent)) for _ in range(100)]
        assert all(deadlines.begun.acquire(timeout=HANG_S) for _ in slow), "all of them are waited for"
        assert ask(port)[:2] == (200, b'{"status":"ok"}')
        assert ask(port, "POST", "/embed", BODY)[:2] == (200, BODY)
        assert select.select(slow, [], [], 0)[0] == [], "they were answered before who came last"
        deadlines.come()
        for number, connection in enumerate(slow):
            answer = received(connection)
            assert answer.startswith(b"HTTP/1.1 408"), (number, answer)
        assert b"bytes came in 600 s, and no end" in answer


def test_a_byte_now_and_then_does_not_lengthen_the_deadline() -> None:
    endless = HEAD.replace(b"Content-Length: 24", b"Content-Length: 99")
    with server(patience_s=PATIENCE_S) as port, opened(port, endless) as connection:
        while not select.select([connection], [], [], PATIENCE_S / 8)[0]:
            connection.sendall(b" ")  # 99 of them would be a body, and last twelve times as long as the server waits
        assert received(connection).startswith(b"HTTP/1.1 408")


@pytest.mark.parametrize("sent", [b"", HEAD[:20], HEAD + BODY + HEAD[:20]])
def test_headers_have_a_deadline_too(sent: bytes) -> None:
    with server(patience_s=PATIENCE_S) as port, opened(port, sent) as connection:
        assert received(connection).count(b"HTTP/1.1 200") == sent.count(BODY), "and then it is closed"


def test_bodies_beyond_what_memory_is_for_are_sent_away_until_there_is_room() -> None:
    largest = b" " * SERVICE.max_bytes
    waiting, go = threading.Semaphore(0), threading.Event()

    async def wait(content_type: str, body: bytes) -> Reply:
        waiting.release()
        while not go.is_set():
            await asyncio.sleep(0.01)
        return Reply(200, b"", JSON)

    with server(wait, held_bytes=0) as port:  # four of the largest
        threads = [threading.Thread(target=ask, args=(port, "POST", "/embed", largest)) for _ in range(4)]
        for thread in threads:
            thread.start()
            assert waiting.acquire(timeout=HANG_S)
        status, body, retry = ask(port, "POST", "/embed", BODY)
        assert (status, retry) == (503, "1")
        assert b"too many large requests wait" in body
        assert ask(port)[0] == 200
        go.set()
        for thread in threads:
            thread.join()
        assert ask(port, "POST", "/embed", largest)[0] == 200


def test_a_body_too_long_is_refused_by_its_header() -> None:
    head = HEAD.replace(b"Content-Length: 24", b"Content-Length: 999999999")
    with server() as port, opened(port, head) as connection:
        answer = received(connection)
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"send fewer rows" in answer


def test_nobody_there_is_503_and_said() -> None:
    async def nobody(content_type: str, body: bytes) -> Reply:
        raise BusyError("no replica answered")

    with server(nobody, ready=False) as port:
        assert ask(port, "POST", "/embed", BODY) == (503, b'{"error":"no replica answered"}', "1")
        assert ask(port) == (503, b'{"error":"no replica has the model"}', "1")
        assert json.loads(ask(port, path="/model")[1]) == MODEL
        assert ask(port, path="/else")[0] == 404


def test_a_server_that_stops_answers_what_it_has_begun_and_then_refuses() -> None:
    begun, is_refusing, found = threading.Semaphore(0), threading.Event(), []

    async def when_refusing(content_type: str, body: bytes) -> Reply:
        begun.release()
        while not is_refusing.is_set():
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.5)  # a server that gave up on requests would have done so by then
        return Reply(200, body, content_type)

    def client() -> None:
        found.append(ask(port, "POST", "/embed", BODY)[:2])

    def watch() -> None:
        with contextlib.suppress(ConnectionRefusedError):
            while True:
                socket.create_connection(("127.0.0.1", port), HANG_S).close()
                time.sleep(0.01)
        is_refusing.set()

    clients = [threading.Thread(target=client) for _ in range(8)]
    watcher = threading.Thread(target=watch)
    with server(when_refusing) as port:
        for thread in clients:
            thread.start()
        assert all(begun.acquire(timeout=HANG_S) for _ in clients)
        watcher.start()
    for thread in (*clients, watcher):
        thread.join()
    assert found == [(200, BODY)] * 8
    with pytest.raises(ConnectionRefusedError):
        ask(port)


def test_a_taken_port_is_refused() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as other,
        pytest.raises(ConfigError, match=r"cannot be listened at .*in use"),
    ):
        bound_socket("127.0.0.1", other.getsockname()[1])

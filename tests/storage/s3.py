"""A real S3 API in this process, that can be cut and brought back with all it holds."""

from __future__ import annotations

import dataclasses
import logging
import re
import socket
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from pyarrow import fs
from werkzeug.serving import BaseWSGIServer, make_server

from distspectral.storage.filesystems import resolve
from tests.runs import write_run

BUCKET = "bucket"


@dataclasses.dataclass(frozen=True)
class Request:
    """What a client asked for.

    Attributes:
        method: of HTTP.
        key: the object's, empty of a bucket.
        query: of the address: ``list-type=2&...`` lists.
        range: the header ``Range``, None where all of the object was asked for.
        n_bytes: of the answer's body.
        client: the access key that signed it: each node of a test can have its own, by AWS_ACCESS_KEY_ID.
    """

    method: str
    key: str
    query: str
    range: str | None
    n_bytes: int
    client: str


class S3Server:
    """moto's server; what is stored outlives a cut, for it is kept in this process.

    Attributes:
        log: all requests that were answered, in order.
    """

    def __init__(self) -> None:
        self.log: list[Request] = []
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        with socket.create_server(("127.0.0.1", 0)) as server:
            self.port = server.getsockname()[1]
        self.n_cuts = 0
        self._server: BaseWSGIServer | None = None

    def __enter__(self) -> Self:
        self.start()
        filesystem, _ = fs.FileSystem.from_uri(f"{self.uri('')}&allow_bucket_creation=true")
        filesystem.create_dir(BUCKET)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    @property
    def options(self) -> str:
        return f"?endpoint_override=127.0.0.1:{self.port}&scheme=http&region=us-east-1"

    def uri(self, path: str) -> str:
        """Return the URI of a place in the bucket."""
        return f"s3://{BUCKET}/{path}{self.options}"

    def start(self) -> None:
        app = self._logged(DomainDispatcherApplication(create_backend_app))
        self._server = make_server("127.0.0.1", self.port, app, threaded=True, request_handler=MotoRequestHandler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def _logged(self, app: Callable[..., Iterable[bytes]]) -> Callable[..., Iterable[bytes]]:
        """Return the app, which writes the log before it answers."""

        def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
            body = app(environ, start_response)
            parts = [b"".join(body)] if environ["REQUEST_METHOD"] != "HEAD" else list(body)
            path = unquote(environ["PATH_INFO"]).removeprefix(f"/{BUCKET}").lstrip("/")
            signed = re.search(r"Credential=([^/]+)/", environ.get("HTTP_AUTHORIZATION", ""))
            self.log.append(
                Request(
                    method=environ["REQUEST_METHOD"],
                    key=path,
                    query=environ.get("QUERY_STRING", ""),
                    range=environ.get("HTTP_RANGE"),
                    n_bytes=sum(map(len, parts)) if environ["REQUEST_METHOD"] != "HEAD" else 0,
                    client=signed.group(1) if signed else "",
                )
            )
            return parts

        return answer

    def stop(self) -> None:
        """Close the port: who connects is refused."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def cut(self, seconds: float) -> None:
        """Go away now and come back after ``seconds``."""
        self.n_cuts += 1
        self.stop()
        threading.Timer(seconds, self.start).start()


def remote_run(folder: Path, server: S3Server, name: str, **sections: Any) -> Path:
    """Write a run whose shards and root are both in the bucket."""
    path = write_run(folder, **sections)
    filesystem, place = resolve(server.uri(f"{name}/data"))
    fs.copy_files(str(folder / "data"), place, destination_filesystem=filesystem)
    text = path.read_text().replace(f"root: {folder}/root", f"root: {server.uri(f'{name}/root')}")
    text = text.replace(f"path: {folder}/data", f"path: {server.uri(f'{name}/data')}")
    path.write_text(text + f"storage: {{cache_dir: {folder}/cache}}\n")
    return path

"""A real S3 API in this process, that can be cut and brought back with all it holds."""

from __future__ import annotations

import logging
import socket
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from pyarrow import fs
from werkzeug.serving import BaseWSGIServer, make_server

from distspectral.storage.filesystems import resolve
from tests.runs import write_run

BUCKET = "bucket"


class S3Server:
    """moto's server; what is stored outlives a cut, for it is kept in this process."""

    def __init__(self) -> None:
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
        app = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", self.port, app, threaded=True, request_handler=MotoRequestHandler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

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

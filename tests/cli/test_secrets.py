"""No secret of a config is in anything that a run prints or writes, and MLflow is reached with it all the same."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from distspectral.cli.app import EXIT_REFUSED, app
from tests.runs import write_run

SECRET = "hush-Hush"


class Tracking(BaseHTTPRequestHandler):
    """As much of MLflow's server as a run asks for."""

    heard: list[tuple[str, str, str]]

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        self.heard.append((self.path, self.headers.get("Authorization", ""), body))
        run = {"info": {"run_id": "r", "experiment_id": "7", "status": "RUNNING"}, "data": {}}
        experiment = {"experiment_id": "7", "name": "distspectral", "lifecycle_stage": "active"}
        content = json.dumps({"run": run, "experiment": experiment, "run_info": run["info"]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PATCH = _answer

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    Tracking.heard = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Tracking) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.mark.usefixtures("own_log")
def test_a_run_with_a_password_for_mlflow_shows_it_to_mlflow_alone(server: ThreadingHTTPServer, tmp_path: Path) -> None:
    uri = f"http://user:{SECRET}@127.0.0.1:{server.server_port}"
    path = write_run(tmp_path, mlflow={"tracking_uri": uri})
    done = CliRunner().invoke(app, ["--log", str(tmp_path / "log"), "run", str(path), "--local", "--json"])
    assert done.exit_code == 0, done.output
    json.loads(done.stdout)
    assert SECRET not in done.output
    texts = {file: file.read_bytes() for file in [tmp_path / "log", *(tmp_path / "root").rglob("*")] if file.is_file()}
    assert (tmp_path / "root" / "report.html") in texts
    assert not [file for file, content in texts.items() if SECRET.encode() in content]
    assert b"http://***@127.0.0.1" in texts[tmp_path / "root" / "report.html"]
    wanted = base64.b64encode(f"user:{SECRET}".encode()).decode()
    assert {login for _, login, _ in Tracking.heard} == {f"Basic {wanted}"}
    assert not [body for _, _, body in Tracking.heard if SECRET in body]
    assert any("http://***@127.0.0.1" in body for _, _, body in Tracking.heard)

    again = CliRunner().invoke(app, ["validate", str(path), "--json"])
    assert again.exit_code == 0
    assert SECRET not in again.output
    assert json.loads(again.stdout)["config"]["mlflow"]["tracking_uri"].startswith("http://***@")


def test_no_error_log_or_traceback_repeats_it(tmp_path: Path) -> None:
    path = write_run(tmp_path, mlflow={"tracking_uri": f"http://user:{SECRET}@127.0.0.1:1"})
    environment = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "PATH": "", "PYTHONPATH": ":".join(sys.path)}
    command = [sys.executable, "-m", "distspectral", "--debug", "--log", "-", "run", str(path), "--local"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode != 0
    assert "Traceback" in done.stderr
    assert "http://***@127.0.0.1:1" in done.stderr
    assert SECRET not in done.stderr + done.stdout


@pytest.mark.parametrize(
    ("override", "key"),
    [
        (f"root=s3://KEY:{SECRET}/x@bucket/run", "root"),
        (f"data.path=s3://KEY:{SECRET}@bucket/run", "data.path"),
        (f"data.path=['s3://b/x?secret_key={SECRET}']", "data.path"),
        (f"start_from=https://b/x?sig={SECRET}", "start_from"),
        (f"network.trunk_options={{api_key: {SECRET}}}", "network.trunk_options.api_key"),
        (f"network.trunk_options={{a: {{password: {SECRET}}}}}", "network.trunk_options.a.password"),
        (f"ray.address=ray://u:{SECRET}@h:1", "ray.address"),
    ],
)
@pytest.mark.parametrize("command", ["validate", "run", "submit", "plan"])
def test_a_secret_that_would_be_written_is_refused_by_its_key(
    tmp_path: Path, command: str, override: str, key: str
) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump({"name": "x", "data": {"path": "/nothing"}}))
    refused = CliRunner().invoke(app, [command, str(path), "--set", override], env={"COLUMNS": "300"})
    assert refused.exit_code == EXIT_REFUSED
    assert f"{key}: carries a secret" in refused.stderr
    assert SECRET not in refused.output


@pytest.mark.parametrize(
    "arguments",
    [
        ("inspect", f"s3://KEY:{SECRET}/x@bucket/run"),
        ("serve", f"s3://KEY:{SECRET}/x@bucket/run"),
        ("embed", "CONFIG", "--local", f"s3://K:{SECRET}/@b/x", "--output", "/nothing"),
        ("validate", "CONFIG", "--set", f"train.max_steps=http://u:{SECRET}@h"),
        ("validate", "CONFIG", "--set", f"train.max_steps={{password: {SECRET}}}"),
        ("validate", "CONFIG", "--set", f"mlflow.tracking_uri=[http://u:{SECRET}@h]"),
        ("validate", "CONFIG", "--set", f"api_key={SECRET}"),
        ("validate", "CONFIG", "--set", f"name.api_key={SECRET}"),
        ("validate", "CONFIG", "--set", f"mlflow.passwort=[http://u:{SECRET}@h"),
    ],
)
def test_what_is_refused_is_refused_without_it(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    path = write_run(tmp_path)
    command = [str(path) if one == "CONFIG" else one for one in arguments]
    refused = CliRunner().invoke(app, command, env={"COLUMNS": "300"})
    assert refused.exit_code == EXIT_REFUSED, refused.output
    assert SECRET not in refused.output

"""Every socket at which a process and its children listen, and what a stranger without the token gets there."""

from __future__ import annotations

import contextlib
import http.client
from dataclasses import dataclass

import grpc
import psutil

JOB = b'{"entrypoint": "true"}'
HTTP_DOORS = [
    ("POST", "/api/job_agent/jobs/", JOB),  # the node's agent, which runs the command
    ("POST", "/api/jobs/", JOB),  # the dashboard
    ("POST", "/get_or_create_runtime_env", b""),
    ("GET", "/api/version", b""),
    ("GET", "/", b""),
]
GRPC_DOORS = [
    "/ray.rpc.NodeInfoGcsService/GetAllNodeInfo",
    "/ray.rpc.InternalKVGcsService/InternalKVKeys",
    "/ray.rpc.NodeManagerService/GetNodeStats",
    "/ray.rpc.ObjectManagerService/Pull",
    "/ray.rpc.CoreWorkerService/GetCoreWorkerStats",
    "/ray.rpc.ReporterService/HealthCheck",
    "/ray.rpc.RayletDriver/Init",  # Ray's client server
    "/ray.serve.RayServeAPIService/ListApplications",
]
TIMEOUT_S = 3
"""A socket that says nothing for so long is none that answers."""


@dataclass(frozen=True)
class Listener:
    """A listening socket.

    Attributes:
        process: what its process calls itself.
        address: that it is bound to.
        port: of it.
    """

    process: str
    address: str
    port: int


def family(pid: int) -> list[psutil.Process]:
    """Return a process and all that descend from it."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    return []


def listeners(processes: list[psutil.Process]) -> list[Listener]:
    """Return the TCP sockets at which processes listen now."""
    found = []
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            name = " ".join(process.cmdline())
            for one in process.net_connections("inet"):
                if one.status == psutil.CONN_LISTEN:
                    found.append(Listener(name, one.laddr.ip, one.laddr.port))
    return found


def answers(port: int) -> list[str]:
    """Return what a stranger without a token gets at a port, but for refusals and numbers for Prometheus."""
    return [*_http_answers(port), *_grpc_answers(port)]


def _http_answers(port: int) -> list[str]:
    found = []
    for method, path, body in HTTP_DOORS:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
        with contextlib.closing(connection):
            try:
                connection.request(method, path, body, {"Content-Type": "application/json"})
                response = connection.getresponse()
                text = response.read().decode(errors="replace")
            except (OSError, http.client.HTTPException):
                break  # this port speaks another language
        is_prometheus = text.startswith("# HELP") or not text
        if response.status < 400 and not is_prometheus:
            found.append(f"{method} {path}: {response.status} {text[:80]}")
    return found


def _grpc_answers(port: int) -> list[str]:
    found = []
    with grpc.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.enable_http_proxy", 0)]) as channel:
        for method in GRPC_DOORS:
            try:
                channel.unary_unary(method)(b"", timeout=TIMEOUT_S)
                found.append(f"{method}: answered")
            except grpc.RpcError as error:
                if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                    break  # this port speaks another language, or none
                if error.code() not in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.UNIMPLEMENTED):
                    found.append(f"{method}: {error.code().name} {error.details()}")
    return found

"""Joining and leaving Ray: quietly, only when a stage has work, and never ending a Ray that another one started.

A Ray of one's own is for this process alone: it listens at the loopback address and asks for a token that nobody else
knows. Ray by itself listens at every address, and whoever reaches its job agent runs commands as this user.
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import os
import secrets
import socket
from collections.abc import Iterator

import psutil
import ray
from ray._private import ray_constants
from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

from distspectral.config.ray import RayConfig
from distspectral.errors import ConfigError, first_line
from distspectral.orchestration.environment import environment_defaults

OBJECT_STORE_BYTES = 256 << 20
"""Of a local Ray: tasks exchange receipts and paths, the vectors stay in files."""

IDLE_S = 24 * 3600
"""How long a local Ray keeps processes without work; Ray by itself ends those beyond one a CPU within a second."""

ANSWER_S = 10
"""An address that nobody answers is refused after it; Ray by itself tries for minutes."""


def token_environment() -> dict[str, str]:
    """Return the variables of the processes of a Ray that asks for a token, a new one."""
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}


def local_environment() -> dict[str, str]:
    """Return the variables of the processes of a local Ray, with a token of its own."""
    variables = token_environment() | {
        # Ray Data warns from C++ of every actor pool (ray-project/ray issue 53727); failures reach Python anyway.
        "RAY_BACKEND_LOG_LEVEL": "fatal",
        # Processes keep what they imported, some three seconds' work, for the stages that follow a long training.
        "RAY_idle_worker_killing_time_threshold_ms": str(IDLE_S * 1000),
    }
    for name, addresses in psutil.net_if_addrs().items():
        if any(one.family == socket.AF_INET and is_loopback(one.address) for one in addresses):
            variables |= {"GLOO_SOCKET_IFNAME": name, "NCCL_SOCKET_IFNAME": name}  # where ranks meet each other
    return variables


def connect(config: RayConfig) -> bool:
    """Join the cluster, or start a local one; return whether this call did so.

    A process that is connected already stays where it is. With ``address: null`` a job started by
    ``ray job submit`` joins the cluster it was submitted to. A cluster is joined with what the environment says of its
    authentication.

    Raises:
        ConfigError: nothing answers at ``ray.address``.
    """
    if ray.is_initialized():
        return False
    address = config.address or os.environ.get("RAY_ADDRESS") or "local"
    try:
        with environment_defaults(RAY_USAGE_STATS_ENABLED="0", **(local_environment() if address == "local" else {})):
            read_authentication()
            if address == "local":
                with _loopback_only():
                    ray.init(
                        address="local",
                        num_cpus=max(os.cpu_count() or 1, (config.max_workers or 1) * config.cpus_per_worker),
                        object_store_memory=OBJECT_STORE_BYTES,
                        include_dashboard=False,
                        logging_level=logging.ERROR,
                        log_to_driver=False,
                    )
            else:
                _knock(address)
                ray.init(address=address, logging_level=logging.ERROR)
    except (OSError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"ray.address: no Ray cluster at {address!r} ({first_line(error)}); start one with "
            "`ray start --head`, or set ray.address to null for a local one",
            ["ray.address"],
        ) from error
    return True


def read_authentication() -> None:
    """Have Ray's C++ read mode and token from the environment of this moment, not from that of its import."""
    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


@contextlib.contextmanager
def _loopback_only() -> Iterator[None]:
    """Have a Ray that starts take 127.0.0.1 for its node's address, as it does by itself on macOS and Windows."""
    before, ray_constants.ENABLE_RAY_CLUSTER = ray_constants.ENABLE_RAY_CLUSTER, False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


def _knock(address: str) -> None:
    """Raise OSError if nothing listens at host:port or ray://host:port."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), ANSWER_S).close()


def disconnect() -> None:
    """Leave the cluster; ends a local one that :func:`connect` started."""
    ray.shutdown()
    read_authentication()


def is_loopback(address: str) -> bool:
    """Return whether an IP address reaches this machine only."""
    ip = ipaddress.ip_address(address)
    mapped = getattr(ip, "ipv4_mapped", None)
    return bool((mapped or ip).is_loopback)


def is_own() -> bool:
    """Return whether the connected cluster is one that :func:`connect` started, for one process on this machine."""
    return is_loopback(ray.util.get_node_ip_address())


def cluster_cores() -> int:
    """Return the cores of the connected cluster of this moment."""
    return max(1, int(ray.cluster_resources().get("CPU", 0)))
